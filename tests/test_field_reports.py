"""Which test holds each situation that users of neighbouring tools have reported as a bug.

The situations are those of public reports (fastai 2336, torchvision 669, 735, 2218, 2605 and 2831, ultralytics 2166,
7003 and 11775, timm 1335, 1349 and 2003, Lightning 3629, Optuna 822, 2021, 2211 and 6427 among others); each is made
with small inputs in its test.
"""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

SITUATIONS = {
    "data/test_folders.py": [
        ("splits under other words or another case are merged", "splits_under_their_usual_names"),
        ("a stray folder beside the splits", "a_stray_folder_changes_no_split"),
        ("the same classes below several parents", "class_names_below_several_parents_are_refused"),
        ("test images that are trained on", "test_images_are_never_trained_on"),
        ("validation data that is the training data", "validation_data_that_is_the_training_data"),
        ("validation images that are training images", "validation_images_that_are_training_images_are_said"),
        ("folders inside a class", "classes_are_the_first_level"),
        ("hidden folders as classes", "hidden_folders_are_not_classes"),
        ("images beside the class folders", "images_beside_the_class_folders_are_left_out_and_named"),
        ("a flat folder", "a_flat_folder"),
        ("a path one level too deep", "one_level_too_deep"),
        ("a path one level too high", "one_level_too_high"),
        ("a path two levels too high", "two_levels_too_high"),
        ("a split without class folders", "a_split_without_class_folders"),
        ("Tiny-ImageNet as it is unpacked", "tiny_imagenet_as_it_is_unpacked"),
        ("a link to the parent", "no_folder_is_read_twice"),
        ("a linked class", "a_linked_class_folder_is_read"),
        ("webp, bmp, tif, gif", "what_pillow_reads_is_read"),
        ("files that are not images", "other_files_are_counted_and_named"),
        ("a class folder without a readable image", "a_class_folder_without_an_image_is_refused"),
        ("a dead link to a class", "a_dead_link_to_a_class_is_refused"),
    ],
    "cli/test_cli_inputs.py": [
        ("splits under other words, at the command line", "splits_under_other_names_are_not_trained_on"),
        ("--strict at any size", "strict_stops_at_a_truncated_image_of_any_size"),
        ("damage in manifest and report", "damage_that_only_decoding_shows_is_in_manifest_and_report"),
        ("an empty path", "an_empty_path_is_never_the_current_folder"),
        ("a shell variable that is not set", "a_variable_of_the_shell_that_is_not_set"),
    ],
    "data/test_unsorted.py": [
        ("Tiny-ImageNet's unsorted validation images", "tiny_imagenets_validation_images"),
        ("ImageNet's unsorted validation images", "imagenets_validation_images"),
    ],
    "data/test_pixels.py": [
        ("16-bit greys that turn white", "classes_of_16_bit_greys_stay_apart"),
        ("16 bits in every format", "16_bits_from_a_file"),
        ("32-bit integers", "integers_of_a_tiff_are_scaled_by_their_range"),
        ("float images that turn black", "floats_are_left_out_and_named"),
        ("EXIF orientation", "orientation"),
        ("hidden colours below alpha", "rgba"),
    ],
    "data/test_checking.py": [
        ("a picture above Pillow's limit", "a_damaged_image_is_left_out_and_named_or_an_error"),
        ("a large picture hides the others' size", "a_bomb_does_not_hide_the_size_of_the_images"),
    ],
    "data/test_archives.py": [
        ("companions of macOS", "macos_companions_are_silent"),
        ("tars that point out", "members_that_point_out_are_refused_by_name"),
        ("links in tars that lead out", "links_that_lead_out_are_refused_by_name"),
    ],
    "test_retraining.py": [
        ("--strict in retrain", "strict_stops_at_an_unreadable_image"),
    ],
    "study/test_session.py": [
        ("resume from another working directory", "a_run_goes_on_from_another_working_directory"),
        ("data that has moved", "a_run_goes_on_where_its_images_have_moved_to"),
        ("weights that have moved", "weights_to_start_from_bring_their_own_normalisation"),
    ],
    "test_checkpoints.py": [
        ("timm's CheckpointSaver with args", "a_file_of_timms_saver_gives_what_timm_takes"),
        ("state_dict beside its moving average", "the_moving_average_is_taken_and_said"),
        ("a moving average alone, model_state_dict", "containers"),
        ("prefixes of torch.compile, DDP and Lightning", "prefixes"),
        ("a Lightning checkpoint with a loss", "lightning"),
        ("foreign objects", "foreign_objects"),
        ("a pickled model", "a_whole_model_pickled"),
        ("git-lfs pointer, HTML, empty file", "files_without_weights"),
        ("safetensors under another name", "the_content_decides_what_a_file_is"),
        ("a truncated file", "a_truncated_file"),
        ("TorchScript", "a_torchscript_archive"),
        ("an empty dictionary", "no_state_dict"),
        ("a folder", "a_folder_and_a_missing_file"),
        ("another network", "another_network"),
        ("a head of another size", "a_head_of_another_size_starts_at_zero_and_is_said"),
        ("quantised weights", "a_network_quantised_by_torch"),
        ("integers in place of weights", "numbers_that_are_not_weights"),
        ("sparse weights", "sparse_weights_are_those_that_they_stand_for"),
        ("weights without content", "weights_without_content"),
        ("weights that are not finite", "weights_that_are_not_finite"),
        ("weights from two places", "one_source_of_weights"),
    ],
    "samplers/test_own_studies.py": [
        (
            "a space with a name that not every trial asks for",
            "a_conditional_space_is_searched_better_than_at_random",
        ),
        ("a name that no trial asks for", "a_name_that_no_trial_asks_for_is_an_error"),
        ("a range that was widened", "ranges_that_were_widened_between_sessions_are_searched"),
        (
            "PartialFixedSampler",
            "parameters_that_are_fixed_around_the_sampler_are_given_to_the_known_function",
        ),
        ("a parameter that was dropped", "a_parameter_that_was_dropped_is_still_given_to_the_known_function"),
        (
            "a known function of a parameter outside the space",
            "a_known_function_that_needs_a_parameter_outside_the_space_names_it_and_the_cure",
        ),
        (
            "choices where the objective asks for integers",
            "space_as_another_kind_than_the_objective_asks_for_is_an_error",
        ),
        (
            "a known function of another objective or unit",
            "a_known_function_of_another_objective_or_unit_is_an_error",
        ),
    ],
    "test_arguments.py": [
        ("TorchScript of a built model", "torchscript_of_a_built_model_is_the_model"),
        ("an integer for square images", "square_images_are_given_by_their_side"),
        ("None for a name", "an_argument_of_a_wrong_type_is_named"),
        ("paths as Path", "paths_may_be_path_objects"),
        ("se_nas.data after import", "parts_are_there_after_import"),
    ],
    "backbones/test_backbones_creation.py": [
        ("hf-hub: and timm/ names", "timms_repositories_name_their_model"),
        ("names of other places", "other_places"),
        ("--pretrained without a network", "pretrained_weights_without_a_network"),
    ],
    "cost/test_cost_closed_form.py": [
        ("fvcore's counts", "equals_fvcore_on_the_built_model"),
    ],
}


@pytest.mark.parametrize("file", SITUATIONS)
def test_every_situation_has_a_test(file):
    text = (TESTS / file).read_text(encoding="utf-8")
    for situation, name in SITUATIONS[file]:
        assert re.search(rf"^def test_{name}\(", text, re.MULTILINE), situation
