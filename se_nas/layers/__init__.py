"""Gates as modules: the inserted block, the gates that timm builds, masks over both, and a kernel for GPUs."""
