"""What a network looked at: LayerCAM (Jiang et al. 2021, LayerCAM: Exploring Hierarchical Class Activation Maps for
Localization, IEEE Transactions on Image Processing 30), which weighs each place of a map by its own gradient where
Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) weighs whole channels by their mean.

That makes maps before the last one useful: at 32x32 pixels the last map of many networks is 4x4 or less.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 8  # of the smallest map that tells places apart


def layer_cam(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Images x (N, 3, H, W), `classes` (N,) -> (N, H, W) in 0..1: how much each place spoke for the class.

    Of the last map of at least SIDE x SIDE of any network in eval mode. Each image's largest value is 1, unless nothing
    spoke for the class. ValueError if there is no such map.
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple, output: object) -> object:
        if not (isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) >= SIDE):
            return None
        maps[:] = [output]
        return output.clone()  # what follows may change it in place

    hooks = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            scores = model(x.clone().requires_grad_()).float()
    finally:
        for hook in hooks:
            hook.remove()
    if not maps:
        raise ValueError(f"the network has no map of {SIDE}x{SIDE}")
    [gradient] = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), maps)
    spoken = (gradient.relu() * maps[0].detach()).sum(1, keepdim=True).relu()  # (N, 1, h, w)
    large = F.interpolate(spoken.float(), x.shape[2:], mode="bilinear")[:, 0]
    return large / large.amax((1, 2), keepdim=True).clamp(min=1e-12)
