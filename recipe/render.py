"""Print what the conda recipe requires on each system; fails where the recipe cannot be rendered.

Takes py-rattler-build, and neither a channel nor a network: nothing is solved or built.
"""

from __future__ import annotations

from pathlib import Path

from rattler_build import JinjaConfig, PlatformConfig, RenderConfig, Stage0Recipe, VariantConfig

RECIPE = Path(__file__).resolve().parent
# Where it is built, and for what; macOS on Apple silicon is cross-compiled by conda-forge.
SYSTEMS = (
    ("linux-64", "linux-64"),
    ("linux-aarch64", "linux-aarch64"),
    ("osx-64", "osx-64"),
    ("osx-64", "osx-arm64"),
    ("win-64", "win-64"),
)


def render(build: str, target: str) -> None:
    """Print the name, version and requirements of the package for one system."""
    platform = PlatformConfig(build_platform=build, target_platform=target)
    variants = VariantConfig.from_file_with_context(RECIPE / "variants.yaml", JinjaConfig(platform=platform))
    for rendered in Stage0Recipe.from_file(RECIPE / "recipe.yaml").render(variants, RenderConfig(platform=platform)):
        recipe = rendered.recipe
        requirements = recipe.requirements.to_dict()
        print(target, recipe.package.name, recipe.package.version)
        for kind in ("build", "host", "run"):
            print(f"  {kind}:", requirements.get(kind))


for build, target in SYSTEMS:
    render(build, target)
