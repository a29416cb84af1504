"""Train a tiny masked autoencoder on the chips of a storage; run it again to continue where it stopped.

In one process, or in several started by torchrun:

    python examples/train_mae.py demo/storage --steps 200
    torchrun --standalone --nproc-per-node 8 examples/train_mae.py s3://bucket/prefix --batch-size 32 --steps 100000
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny_mae import TinyMAE

from clay_assets.training import ChipLoader, ChipStream, open_chips


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("storage", help="folder or s3://bucket/prefix with a merged index")
    parser.add_argument("--split", default="train")
    parser.add_argument("--platform", nargs="*", help="platform keys; all by default")
    parser.add_argument("--steps", type=int, default=300, help="in all, those before it was resumed included")
    parser.add_argument("--batch-size", type=int, default=16, help="chips of a batch, on each rank")
    parser.add_argument("--workers", type=int, default=2, help="processes that read chips, of each rank")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, default=Path("mae.pt"))
    parser.add_argument("--every", type=int, default=50, help="steps from one checkpoint, and line, to the next")
    return parser.parse_args()


def main() -> None:
    """Train, in one process or in those started by torchrun."""
    options = parsed()
    ranked = "RANK" in os.environ  # set by torchrun
    if ranked:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    first = not ranked or dist.get_rank() == 0
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if torch.cuda.is_available() else "cpu"

    # Every rank gets its share of each epoch. With "equal", large platforms do not crowd out small ones; drop_last
    # gives each rank the same number of steps. Chips that cannot be read are skipped and counted.
    stream = ChipStream(
        open_chips(options.storage, options.platform, split=options.split),
        options.batch_size,
        seed=options.seed,
        platforms="equal",
        drop_last=True,
        on_error="skip",
    )
    loader = ChipLoader(
        stream,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context="spawn" if options.workers else None,
    )

    torch.manual_seed(options.seed)
    model = TinyMAE().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step = 0
    if options.checkpoint.exists():
        kept = torch.load(options.checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(kept["model"])
        optimizer.load_state_dict(kept["optimizer"])
        loader.load_state_dict(kept["loader"])  # works with any number of ranks and workers
        step = kept["step"]
        if first:
            print(f"resumed at step {step}: {kept['loader']}", flush=True)
    trained: Any = torch.nn.parallel.DistributedDataParallel(model) if ranked else model

    losses, chips, since = [], 0, time.perf_counter()
    while step < options.steps:
        for batch in loader:  # the rest of an epoch
            given = {name: value.to(device) for name, value in batch.items() if torch.is_tensor(value)}
            masks = torch.Generator().manual_seed(step)  # so that a resumed run masks the same patches
            optimizer.zero_grad()
            loss = trained(given, masks)
            loss.backward()
            optimizer.step()
            step += 1
            losses.append(loss.item())
            chips += len(batch["platform"])
            if step % options.every == 0 or step == options.steps:
                if first:
                    rate = chips / (time.perf_counter() - since)
                    mean = sum(losses) / len(losses)
                    skipped = f", {loader.skipped} chips skipped" if loader.skipped else ""
                    print(
                        f"step {step}, epoch {stream.epoch}: loss {mean:.4f}, {rate:.1f} chips/s{skipped}", flush=True
                    )
                    keep(options.checkpoint, model, optimizer, loader, step)
                losses, chips, since = [], 0, time.perf_counter()
            if step == options.steps:
                break
    if ranked:
        dist.destroy_process_group()


def keep(path: Path, model: TinyMAE, optimizer: torch.optim.Optimizer, loader: ChipLoader, step: int) -> None:
    """Write a checkpoint atomically, so that a kill leaves the last one intact."""
    kept = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "loader": loader.state_dict(),
        "step": step,
    }
    torch.save(kept, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)


if __name__ == "__main__":
    main()
