"""The compiled part of the wheel; all else that a build needs stands in pyproject.toml.

Where no compiler is found the build goes on without it: numpy gives the same answers, only later. With
SLUICEGATE_PURE=1 nothing is compiled, and the wheel is one for every platform.
"""

import os

from setuptools import Extension, setup

PURE = os.environ.get("SLUICEGATE_PURE") == "1"
# Fused or reordered float32 would give other answers than numpy; -O3 keeps both as they are written.
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"]
SCORING = Extension(
    "runtime.ngrams._scoring",
    ["runtime/ngrams/_scoring.c"],
    depends=["runtime/ngrams/_grams.h", "runtime/ngrams/_scores.h"],
    extra_compile_args=FLAGS,
    py_limited_api=True,
    optional=True,
)

setup(
    ext_modules=[] if PURE else [SCORING],
    options={} if PURE else {"bdist_wheel": {"py_limited_api": "cp311"}},
)
