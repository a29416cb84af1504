"""Import PyTorch, or say how to install it."""

try:
    import torch
    import torch.distributed
    import torch.utils.data
except ImportError as missing:
    raise ImportError(
        "clay_assets.training: PyTorch is not installed. Run `pip install 'clay_assets[torch]'`."
    ) from missing

__all__ = ["torch"]
