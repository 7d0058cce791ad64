"""What makes each layer of ours from one of lava-dl."""

__all__ = ["PACKAGE", "PREFIX"]

#: package of lava-dl's classes
PACKAGE = "lava.lib.dl"
PREFIX = f"{PACKAGE}."
