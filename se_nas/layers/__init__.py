"""Gates as modules: the inserted block, the ones that timm builds, and a kernel for GPUs."""
