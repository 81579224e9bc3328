"""Darknet's ``.weights``: a header, then float32 a layer in order, little endian. Read and written.

The header: int32 major, minor, revision; then the number of images seen in training, as uint64 from version 0.2 on, int32 before. From
major or minor 1000 on, dense layers are stored transposed.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from saccade.models.darknet.layers import Connected, Layer
from saccade.models.darknet.network import DarknetNetwork
from saccade.types.errors import DataError


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


def read_weights(network: DarknetNetwork, path: str | Path, *, partial: bool = False) -> int:
    """Load a file into a network, all or nothing.

    Args:
        network: built from the file's description.
        path: the file.
        partial: it may end after any whole layer (``darknet53.conv.74``); later layers keep their weights.

    Returns:
        Layers that were loaded, counted from the first; those without weights count.

    Raises:
        DataError: the floats are more or fewer than the layers need, or some are not finite; names the section and its line.
    """
    path = Path(path)
    header = read_header(path)
    size = path.stat().st_size
    layers = [layer for layer in network.layers if isinstance(layer, Layer)]
    wanted = sum(layer.floats for layer in layers)
    if header.transposed and size - 16 == 4 * wanted:  # the original wrote a short count of images with these versions
        header = Header(header.major, header.minor, header.revision, header.seen & 0xFFFFFFFF, 16)
    floats, rest = divmod(size - header.size, 4)
    if rest:
        raise DataError(path, f"ends within a number: {size} bytes are no header of {header.size} and whole floats", hint="fetch it again")
    if floats > wanted:
        raise DataError(path, f"has {floats:,} floats, {network.description.path.name} needs {wanted:,}", hint="it is of another network")
    values = np.memmap(path, dtype="<f4", mode="r", offset=header.size, shape=(floats,)) if floats else np.zeros(0, np.float32)
    at, loaded = 0, len(layers)
    plan: list[tuple[Tensor, int]] = []
    for k, (section, layer) in enumerate(zip(network.sections, layers, strict=True)):
        if at == floats and layer.floats and partial:
            loaded = k
            break
        if at + layer.floats > floats:
            missing = section.error("").where
            raise DataError(
                path,
                f"has {floats:,} floats, {network.description.path.name} needs {wanted:,}: it ends {'within' if floats > at else 'before'} "
                f"{missing}, which takes {layer.floats:,} from {at:,} on",
                hint="it is of another network, or was cut off",
            )
        for tensor in layer.file_tensors():
            plan.append((tensor, at))
            at += tensor.numel()
        if layer.floats and not np.isfinite(values[at - layer.floats : at]).all():
            raise DataError(
                path, "holds numbers that are not finite", where=section.error("").where, hint="training diverged; take an earlier file"
            )
    if at < floats:
        raise DataError(path, f"has {floats:,} floats, {network.description.path.name} needs {wanted:,}", hint="it is of another network")
    dense = {id(layer.dense.weight) for layer in layers if isinstance(layer, Connected)} if header.transposed else set()
    with torch.no_grad():
        for tensor, start in plan:
            part = torch.from_numpy(np.array(values[start : start + tensor.numel()], dtype=np.float32))
            tensor.copy_(part.view(tensor.shape[::-1]).T if id(tensor) in dense else part.view(tensor.shape))
    return loaded


def write_weights(network: DarknetNetwork, path: str | Path, *, seen: int = 0) -> None:
    """Write a file that Darknet reads (version 0.2.0), atomically.

    Args:
        network: its weights. path: the file. seen: images seen in training.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(struct.pack("<3iQ", 0, 2, 0, seen))
        for layer in network.layers:
            assert isinstance(layer, Layer)
            for tensor in layer.file_tensors():
                file.write(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    os.replace(part, path)
