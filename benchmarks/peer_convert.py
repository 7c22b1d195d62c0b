"""Runs in a peer's own environment: PYTHON peer_convert.py PEER SOURCE DEST, 4 bits."""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
import sys
from pathlib import Path

BITS, GROUP_SIZE = 4, 64


def main() -> None:
    peer, source, destination = sys.argv[1:]
    if peer == "mlx-audio":
        from mlx_audio.convert import convert

        convert(
            source,
            destination,
            quantize=True,
            q_bits=BITS,
            q_group_size=GROUP_SIZE,
            model_domain="stt",
        )
        # It copies the source along, and would then load that.
        (Path(destination) / "consolidated.safetensors").unlink(missing_ok=True)
    else:
        from voxmlx import convert as module

        module.download_model = Path  # it takes Hub ids only
        module.convert(
            source, destination, quantize=True, q_bits=BITS, q_group_size=GROUP_SIZE
        )


if __name__ == "__main__":
    main()
