#!/usr/bin/env python3
"""Install to a fresh prefix; build C and C++ programs with pkg-config and find_package; run them."""
import os
import pathlib
import subprocess
import sys
import tempfile

PROGRAM = """\
#include <varve/varve.h>
#include <stdio.h>
int main(void)
{
    int built = VARVE_VERSION_MAJOR * 10000 + VARVE_VERSION_MINOR * 100 + VARVE_VERSION_PATCH;
    int major = 0, minor = 0, patch = 0;
    if (sscanf(varve_version(), "%d.%d.%d", &major, &minor, &patch) != 3)
        return 1;
    printf("varve %s\\n", varve_version());
    return built != major * 10000 + minor * 100 + patch;
}
"""
OP_PROGRAM = """\
#include <varve/op.h>
#include <stdio.h>
int main(void)
{
    /* refused, with a line to ggml's log: enough to see that everything was found and linked */
    return varve_ggml_state_init(NULL) ? 1 : 0;
}
"""
PROJECT = """\
cmake_minimum_required(VERSION 3.22)
project(user C CXX)
find_package(varve 0.1 REQUIRED)
foreach(language c cpp)
  add_executable(user_${language} user.${language})
  target_link_libraries(user_${language} varve::varve)
endforeach()
"""

OP_PROJECT = """\
cmake_minimum_required(VERSION 3.22)
project(op C)
find_package(varve 0.1 REQUIRED)
add_executable(op op.c)
target_link_libraries(op varve::op ${GGML})
"""


def run(*command, env=None):
    """Run a command; on failure show all it said."""
    result = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, check=False,
                            env={**os.environ, **(env or {})})
    if result.returncode != 0:
        sys.exit(f"FAIL: {' '.join(map(str, command))}\n{result.stdout}")
    return result.stdout


def with_pkg_config(folder, prefix):
    env = {"PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig"}
    flags = run("pkg-config", "--cflags", "--libs", "varve", env=env).split()
    version = run("pkg-config", "--modversion", "varve", env=env).strip()
    for compiler, language in (("cc", "c"), ("c++", "cpp")):
        program = folder / f"pc_{language}"
        run(compiler, "-Wall", "-Wextra", "-Werror", folder / f"user.{language}", "-o", program,
            *flags)
        said = run(program, env={"LD_LIBRARY_PATH": f"{prefix}/lib"}).strip()
        assert said == f"varve {version}", f"{said!r} from {program}, pkg-config says {version}"


def with_find_package(folder, prefix):
    (folder / "CMakeLists.txt").write_text(PROJECT, encoding="utf-8")
    run("cmake", "-S", folder, "-B", folder / "b", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", folder / "b")
    for language in ("c", "cpp"):
        run(folder / "b" / f"user_{language}")


def op_library(folder, prefix):
    """Programs on ggml find varve/op.h and its library by pkg-config, and by find_package."""
    llama = pathlib.Path(os.environ["VARVE_LLAMA"]).resolve()
    ggml = [f"-I{llama}/src/ggml/include", f"-L{llama}/lib", "-lggml-base"]
    env = {"PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig"}
    flags = run("pkg-config", "--cflags", "--libs", "varve-op", env=env).split()
    paths = {"LD_LIBRARY_PATH": f"{prefix}/lib:{llama}/lib"}
    for compiler, language in (("cc", "c"), ("c++", "cpp")):
        (folder / f"op.{language}").write_text(OP_PROGRAM, encoding="utf-8")
        program = folder / f"op_{language}"
        run(compiler, "-Wall", "-Wextra", "-Werror", folder / f"op.{language}", "-o", program,
            *flags, *ggml)
        assert "varve_ggml_state_init: state: NULL" in run(program, env=paths)
    project = folder / "op_project"
    project.mkdir()
    (project / "op.c").write_text(OP_PROGRAM, encoding="utf-8")
    (project / "CMakeLists.txt").write_text(OP_PROJECT, encoding="utf-8")
    run("cmake", "-S", project, "-B", project / "b", f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DCMAKE_C_FLAGS=-I{llama}/src/ggml/include", f"-DGGML={llama}/lib/libggml-base.so")
    run("cmake", "--build", project / "b")
    run(project / "b" / "op", env=paths)
    dynamic = run("readelf", "-d", prefix / "lib" / "libvarve-op.so")
    assert "libvarve-op.so.0" in dynamic and "RPATH" not in dynamic and "RUNPATH" not in dynamic, \
        f"wrong SONAME, or an RPATH:\n{dynamic}"


def installed_files(prefix):
    """The launcher runs from the prefix; what is loaded into hosts carries no RPATH."""
    said = run(prefix / "bin" / "varve", "--help")
    assert "exec" in said, f"varve --help does not mention exec:\n{said}"
    if (prefix / "bin" / "varve-run").exists():  # finds llama.cpp's libraries from there
        assert "--compare" in run(prefix / "bin" / "varve", "run", "--help")
    if (prefix / "bin" / "varve-bench").exists():  # finds ggml's libraries from there
        said = run(prefix / "bin" / "varve", "bench", "--kv", "256", "--layers", "1", "--seconds", "0.05")
        assert "decode" in said, said
    said = run(prefix / "bin" / "varve", "verify", "--quick", "--isa", "scalar")
    assert said.splitlines()[-1].endswith("kernels checked, 0 failed"), said
    for name in ("libggml-varve.so", "libvarve-preload.so"):
        dynamic = run("readelf", "-d", prefix / "lib" / name)
        assert "RPATH" not in dynamic and "RUNPATH" not in dynamic, f"{name} has an RPATH"
    dynamic = run("readelf", "-d", prefix / "lib" / "libvarve.so")
    assert "libvarve.so.0" in dynamic, f"wrong SONAME:\n{dynamic}"
    symbols = run("nm", "-D", "--defined-only", prefix / "lib" / "libvarve.so").splitlines()
    foreign = [s for s in symbols if not s.split()[-1].startswith("varve_")]
    assert symbols and not foreign, f"exported beside varve_*: {foreign}"


def main():
    build = os.environ.get("VARVE_BUILD", "build")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prefix = folder / "prefix"
        run("cmake", "--install", build, "--prefix", prefix)
        for language in ("c", "cpp"):
            (folder / f"user.{language}").write_text(PROGRAM, encoding="utf-8")
        with_pkg_config(folder, prefix)
        with_find_package(folder, prefix)
        installed_files(prefix)
        if (prefix / "include" / "varve" / "op.h").exists():
            op_library(folder, prefix)
    print("ok")


if __name__ == "__main__":
    main()
