"""Measure: genkit bench methods | latency | attention | video | speech | music.

methods compares all methods on densities that are known exactly; latency times a student beside
its teacher, from the prompt to the picture; attention times sparse attention beside PyTorch's;
video plays a world for a minute and tells its frames per second and whether it drifts; speech
times a voice by its parts, on one core and on two, and how soon a stream is heard; music makes a
song of four minutes and times its parts.
"""

from __future__ import annotations

import importlib

BENCHES = {
    "methods": "genkit.benchmarks.methods",
    "latency": "genkit.benchmarks.latency",
    "attention": "genkit.benchmarks.attention",
    "video": "genkit.benchmarks.video",
    "speech": "genkit.benchmarks.speech",
    "music": "genkit.benchmarks.music",
}


def run(argv: list[str]) -> int:
    """Fill the benchmark's own `Settings` from the rest of the command line and run it."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: genkit bench {'|'.join(BENCHES)} [options]\n\n{__doc__}")
        return 0
    if argv[0] not in BENCHES:
        from genkit.catalogue import unknown

        raise unknown("benchmark", argv[0], BENCHES)
    from genkit.commands.flags import names, parse

    bench, rest = importlib.import_module(BENCHES[argv[0]]), argv[1:]
    named = rest and not rest[0].startswith("-") and "--pipeline" in names(bench.Settings)
    bench.main(parse(bench.Settings, [*["--pipeline"] * bool(named), *rest], f"bench {argv[0]}"))
    return 0
