"""The recipes of exps/ go along with the package, as yolox/recipes."""

from setuptools import find_packages, setup

RECIPES = {"yolox.recipes": "exps", "yolox.recipes.default": "exps/default"}

setup(packages=[*find_packages(include=["yolox*"]), *RECIPES], package_dir=RECIPES)
