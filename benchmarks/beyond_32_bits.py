"""More edges than 32 bits count, for real: exact totals, time and memory of a volume of more than 2**31 edges.

    python benchmarks/beyond_32_bits.py components tree loss pairs

`pairs` needs 43 GiB, most of it for the counts themselves; a function is left out where memory and swap do not suffice.

Each function runs in a process of its own on affinities of 8.2 GiB, which are made in parts so that making them takes
no more. What comes out is compared with what the volume was made of. Not part of any test: the paths for 64-bit indices
are tested on small volumes.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

import malis

# Twelve offsets, so that the nodes, which take several numbers each, are fewer than the edges.
NHOOD = -np.concatenate([np.diag(reach) for reach in ([1, 1, 1], [2, 3, 3], [3, 9, 9], [4, 27, 27])])
SHAPE = (568, 568, 568)
SLAB = 71  # eight objects, one behind the other along the first axis, each of so many planes
EDGES = len(NHOOD) * int(np.prod(SHAPE))
NEEDED = {"components": 10, "tree": 23, "loss": 19, "pairs": 44}  # GiB, as measured


def volume() -> tuple[np.ndarray, np.ndarray]:
    """Affinities of at least 0.5 within eight slabs, and of less than 0.4 between them; their labels."""
    seg = np.empty(SHAPE, np.uint8)
    seg[:] = (np.arange(SHAPE[0]) // SLAB + 1).astype(np.uint8)[:, None, None]
    aff = np.empty((len(NHOOD), *SHAPE), np.float32)
    rng = np.random.default_rng(32)
    for channel, (z, _, _) in zip(aff, NHOOD, strict=True):
        for plane in range(SHAPE[0]):
            within = plane + z >= 0 and (plane + z) // SLAB == plane // SLAB
            rng.random(out=channel[plane], dtype=np.float32)
            channel[plane] *= np.float32(0.5 if within else 0.4)
            if within:
                channel[plane] += np.float32(0.5)
    return aff, seg


def check(function: str, aff: np.ndarray, seg: np.ndarray) -> dict[str, object]:
    """Call a function, compare its totals with those that follow from the volume, and return them."""
    voxels, objects = int(np.prod(SHAPE)), SHAPE[0] // SLAB
    of_object = voxels // objects
    if function == "components":
        result, sizes = malis.affgraph_to_seg(aff, NHOOD, threshold=0.45)
        assert sizes.tolist() == [0] + [of_object] * objects
        assert all((result[i * SLAB : (i + 1) * SLAB] == result[i * SLAB, 0, 0]).all() for i in range(objects))
        return {"objects": len(sizes) - 1}
    if function == "tree":
        tree = malis.maximum_spanning_tree(aff, NHOOD)
        assert len(tree.edges) == voxels - 1
        assert (tree.affinities[: voxels - objects] >= 0.5).all()
        assert (tree.affinities[voxels - objects :] < 0.4).all()
        return {"edges": len(tree.edges), "largest index": int(tree.edges.max())}
    positive = objects * (of_object * (of_object - 1) // 2)
    negative = voxels * (voxels - 1) // 2 - positive
    if function == "pairs":
        pos, neg = malis.pairs(aff, seg, NHOOD)
        assert int(pos.sum()) == positive
        assert int(neg.sum()) == negative
        return {"positive": positive, "negative": negative}
    loss, grad = malis.malis_loss(aff, seg, NHOOD, normalize=False, margin=0, pos_loss_weight=0)
    # Only the edges that join slabs count, each with all pairs between what it joins: their squared affinities.
    edges = np.flatnonzero(grad.reshape(-1) > 0)
    assert len(edges) == objects - 1
    affinities, slopes = aff.reshape(-1)[edges].astype(float), grad.reshape(-1)[edges].astype(float)
    np.testing.assert_allclose((slopes / (4 * affinities)).sum(), negative, rtol=1e-6)
    np.testing.assert_allclose(loss, (slopes * affinities / 2).sum(), rtol=1e-6)
    return {"loss": loss, "largest index": int(edges.max())}


def run(function: str) -> None:
    """Make the volume, call one function on it, and print what it took."""
    aff, seg = volume()
    start = time.perf_counter()
    result = check(function, aff, seg)
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"function": function, **result, "seconds": round(seconds, 1), "GiB": round(memory, 2)}))


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="More than 2**31 edges, for real.")
    parser.add_argument("functions", nargs="*", choices=list(NEEDED), default=["components"])
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        run(args.functions[0])
        return 0
    assert EDGES > 2**31
    print(f"{EDGES:,} edges, {EDGES / 2**31:.3f} * 2**31")
    with open("/proc/meminfo") as file:
        sizes = {name: int(size.split()[0]) for name, size in (line.split(":") for line in file)}  # KiB
    available = (sizes["MemAvailable"] + sizes["SwapFree"]) / 2**20
    status = 0
    for function in args.functions:
        if available < NEEDED[function]:
            print(f"{function} needs {NEEDED[function]} GiB of memory, {available:.0f} are available: left out")
            continue
        status |= subprocess.run([sys.executable, __file__, function, "--here"]).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
