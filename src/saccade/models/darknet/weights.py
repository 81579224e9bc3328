"""Darknet's ``.weights``: a header, then float32 a layer in order, little endian. Read and written, for networks built from a ``.cfg`` and
for the papers' own classes, whose modules stand in the order of their authors' cfg.

The header: int32 major, minor, revision; then the number of images seen in training, as uint64 from version 0.2 on, int32 before. From
major or minor 1000 on, dense layers are stored transposed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from saccade.layers.conv_bn import ConvBN
from saccade.models.darknet.cfg import check_regular
from saccade.models.darknet.layers import Connected, Layer
from saccade.models.darknet.network import DarknetNetwork
from saccade.types.errors import DataError
from saccade.types.files import atomic


@dataclass(frozen=True)
class Header:
    """What a file begins with. ``size``: its bytes."""

    major: int
    minor: int
    revision: int
    seen: int
    size: int

    @property
    def transposed(self) -> bool:
        """Whether dense layers are stored the other way round."""
        return self.major > 1000 or self.minor > 1000


def read_header(path: Path) -> Header:
    """The header of a file of weights.

    Raises:
        DataError: too short, or versions that no program wrote.
    """
    check_regular(path)
    try:
        with path.open("rb") as file:
            start = file.read(20)
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from None
    if len(start) < 16:
        raise DataError(path, f"has {len(start)} bytes: too short for a file of weights")
    major, minor, revision = struct.unpack_from("<3i", start)
    if not all(0 <= version < 1_000_000 for version in (major, minor, revision)):
        raise DataError(path, f"begins with version {major}.{minor}.{revision}: no Darknet weights")
    wide = major * 10 + minor >= 2
    if wide and len(start) < 20:
        raise DataError(path, "ends within its header")
    (seen,) = struct.unpack_from("<Q" if wide else "<i", start, 12)
    return Header(major, minor, revision, seen, 20 if wide else 16)


@dataclass(frozen=True)
class Unit:
    """What one layer takes in the file.

    Attributes:
        name: where it stands, for messages.
        tensors: parameters and buffers, in the order of the file.
        dense: the weights that some versions store transposed.
    """

    name: str
    tensors: list[Tensor]
    dense: Tensor | None = None

    @property
    def floats(self) -> int:
        """Numbers in the file."""
        return sum(tensor.numel() for tensor in self.tensors)


def units(network: nn.Module) -> list[Unit]:
    """The layers of a network in the order of the file: a cfg's sections, or the modules of a class in the order of their declaration.

    Of a class count :class:`~saccade.layers.conv_bn.ConvBN`, plain convolutions and dense layers (biases, then weights), and Darknet's own
    layers.
    """
    if isinstance(network, DarknetNetwork):
        layers = [layer for layer in network.layers if isinstance(layer, Layer)]
        return [_of_layer(s.error("").where, layer) for s, layer in zip(network.sections, layers, strict=True)]
    out: list[Unit] = []
    inside: set[int] = set()  # children of a unit are not units of their own
    for name, module in network.named_modules():
        if id(module) in inside:
            continue
        if isinstance(module, Layer):
            unit = _of_layer(name, module)
        elif isinstance(module, ConvBN):
            bn = module.bn
            assert bn.running_mean is not None
            assert bn.running_var is not None
            unit = Unit(name, [bn.bias, bn.weight, bn.running_mean, bn.running_var, module.conv.weight])
        elif isinstance(module, (nn.Conv2d, nn.Linear)):
            biases = [] if module.bias is None else [module.bias]
            unit = Unit(name, [*biases, module.weight], module.weight if isinstance(module, nn.Linear) else None)
        else:
            continue
        inside |= {id(child) for child in module.modules()}
        out.append(unit)
    return out


def _of_layer(name: str, layer: Layer) -> Unit:
    return Unit(name, layer.file_tensors(), layer.dense.weight if isinstance(layer, Connected) else None)


def is_darknet(path: str | Path) -> bool:
    """Whether a file is Darknet's by its first bytes: versions as they were, no header of safetensors, zip or pickle."""
    try:
        check_regular(Path(path))
        with Path(path).open("rb") as file:
            start = file.read(20)
    except (OSError, DataError):
        return False
    if len(start) < 16 or start[8:9] == b"{" or start[:2] in (b"PK", b"\x80\x02"):
        return False
    return all(0 <= version < 100_000 for version in struct.unpack_from("<3i", start))


def read_weights(network: nn.Module, path: str | Path, *, partial: bool = False) -> int:
    """Load a file into a network, all or nothing.

    Args:
        network: built from the file's description, or a class in its order.
        path: the file.
        partial: it may end after any whole layer (``darknet53.conv.74``); later layers keep their weights.

    Returns:
        Layers that were loaded, counted from the first; those without weights count.

    Raises:
        DataError: the floats are more or fewer than the layers need, or some are not finite; names the section and its line.
    """
    plan = units(network)
    return _read(plan, plan, Path(path), _name(network), partial)


def read_other_classes(network: nn.Module, like: nn.Module, path: str | Path) -> None:
    """Load a file made for ``like``, the network with another number of classes: layers of another shape keep their weights."""
    _read(units(network), units(like), Path(path), _name(network), partial=False)


def _name(network: nn.Module) -> str:
    if isinstance(network, DarknetNetwork):
        return network.description.path.name
    return getattr(network, "build_name", "") or type(network).__name__


def _read(targets: list[Unit], stored: list[Unit], path: Path, name: str, partial: bool) -> int:
    """Floats of ``stored`` layers into the ``targets`` of the same shape."""
    header = read_header(path)
    size = path.stat().st_size
    wanted = sum(unit.floats for unit in stored)
    if header.transposed and size - 16 == 4 * wanted:  # the original wrote a short count of images with these versions
        header = Header(header.major, header.minor, header.revision, header.seen & 0xFFFFFFFF, 16)
    floats, rest = divmod(size - header.size, 4)
    if rest:
        raise DataError(path, f"ends within a number: {size} bytes are no header of {header.size} and whole floats", hint="fetch it again")
    if wanted and not floats:
        raise DataError(path, f"ends with its header: it holds none of the {wanted:,} floats of {name}", hint="it was cut off")
    if floats > wanted:
        raise DataError(path, f"has {floats:,} floats, {name} needs {wanted:,}", hint="it is of another network or number of classes")
    values = np.memmap(path, dtype="<f4", mode="r", offset=header.size, shape=(floats,)) if floats else np.zeros(0, np.float32)
    at, loaded = 0, len(stored)
    plan: list[tuple[Tensor, int, bool]] = []
    for k, (unit, target) in enumerate(zip(stored, targets, strict=True)):
        if at == floats and unit.floats and partial:
            loaded = k
            break
        if at + unit.floats > floats:
            raise DataError(
                path,
                f"has {floats:,} floats, {name} needs {wanted:,}: it ends {'within' if floats > at else 'before'} "
                f"{unit.name}, which takes {unit.floats:,} from {at:,} on",
                hint="it is of another network, or was cut off",
            )
        if unit.floats and not np.isfinite(values[at : at + unit.floats]).all():
            raise DataError(path, "holds numbers that are not finite", where=unit.name, hint="training diverged; take an earlier file")
        same = [tensor.shape for tensor in unit.tensors] == [tensor.shape for tensor in target.tensors]
        for tensor, own in zip(unit.tensors, target.tensors, strict=True):
            if same:
                plan.append((own, at, header.transposed and tensor is unit.dense))
            at += tensor.numel()
    with torch.no_grad():
        for tensor, start, transposed in plan:
            part = torch.from_numpy(np.array(values[start : start + tensor.numel()], dtype=np.float32))
            tensor.copy_(part.view(tensor.shape[::-1]).T if transposed else part.view(tensor.shape))
    return loaded


def write_weights(network: nn.Module, path: str | Path, *, seen: int = 0) -> None:
    """Write a file that Darknet reads (version 0.2.0), atomically.

    Args:
        network: built from a description, or a class in its order. path: the file. seen: images seen in training.
    """
    with atomic(Path(path)) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<3iQ", 0, 2, 0, seen))
        for unit in units(network):
            for tensor in unit.tensors:
                file.write(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
