"""Reads what Weights & Biases writes offline: records of protocol buffers in LevelDB's log format."""

import json
import struct

HEADER, BLOCK = 7, 32768
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path):
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part = path.read_bytes(), HEADER, b""
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        assert kind in (FULL, FIRST, MIDDLE, LAST), (path, at, kind)
        part = (b"" if kind in (FULL, FIRST) else part) + data[at + 7 : at + 7 + length]
        if kind in (FULL, LAST):
            yield Record.FromString(part)
        at += 7 + length


def read_run(path):
    """The run of a file: its name, group, tags and configuration, the entries of its history, and its summary."""
    run, history, summary, exit_code = {}, [], {}, None
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            made = record.run
            config = {item.key: json.loads(item.value_json) for item in made.config.update}
            run = {
                "name": made.display_name,
                "group": made.run_group,
                "id": made.run_id,
                "tags": set(made.tags),
                "config": config,
            }
        elif kind == "history":
            history.append(_values(record.history.item))
        elif kind == "summary":
            summary |= _values(record.summary.update)
        elif kind == "exit":
            exit_code = record.exit.exit_code
    return {**run, "history": history, "summary": summary, "exit": exit_code}


def _values(items):
    found = {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in items}
    return {name: value for name, value in found.items() if not name.startswith("_")}
