#!/usr/bin/env python3
"""llama.cpp's own operator tests, run on varve.

test-backend-ops does not count cases that a back end declines: one that takes nothing passes with
0/0. So the number of cases is asserted, and that what is declined is declined for its format.
"""
import os
import re

import common
from common import check

N_ATTENTION, N_ATTENTION_MIN = 5308, 5300
CASE = re.compile(r"^\s*((?:FLASH_ATTN_EXT|SET_ROWS)\(.*\)): (.*)$")


def run_cases(op, backend, env=None, timeout=1800):
    """[(case, "OK", "FAIL" or "not supported")], one of them twice, and the Result."""
    command = [common.program("test-backend-ops"), "test", "-b", backend, "-o", op,
               "-j", os.cpu_count()]  # workers with a back end each: contexts side by side
    result = common.run(command, env=env, timeout=timeout)
    cases = []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", result.out).splitlines():
        match = CASE.match(line)
        if match:
            words = match.group(2)
            verdict = "not supported" if "not supported" in words else words.split()[-1]
            cases.append((match.group(1), verdict))
    return cases, result


def of_verdict(cases, verdict):
    return [case for case, given in cases if given == verdict]


def flash_attention():
    cases, result = run_cases("FLASH_ATTN_EXT", "VARVE", common.plugged())
    passed = of_verdict(cases, "OK")
    declined = of_verdict(cases, "not supported")
    failed = [c for c, given in cases if given not in ("OK", "not supported")]
    common.note(f"{len(passed)} passed, {len(failed)} failed, {len(declined)} declined of "
                f"{len(cases)} cases in {result.seconds:.0f} s")
    check(result.code == 0 and not failed, "FLASH_ATTN_EXT: no case failed",
          "\n".join(failed[:10]) or result)
    check(len(cases) == N_ATTENTION, f"FLASH_ATTN_EXT: {N_ATTENTION} cases",
          f"{len(cases)} were listed; another version of llama.cpp?")
    check(len(passed) >= N_ATTENTION_MIN,
          f"FLASH_ATTN_EXT: at least {N_ATTENTION_MIN} cases ran and passed", len(passed))
    foreign = [c for c in declined if not re.search(r"type_[KV]=q[12]_0", c)]
    check(not foreign, "FLASH_ATTN_EXT: only q1_0 and q2_0 are declined", "\n".join(foreign[:10]))


def set_rows():
    stock, _ = run_cases("SET_ROWS", "CPU")
    cases, result = run_cases("SET_ROWS", "VARVE", common.plugged())
    for name in common.FORMATS:
        wanted = [c for c, _ in stock if f"type_dst={name}," in c]
        passed = [c for c in of_verdict(cases, "OK") if f"type_dst={name}," in c]
        check(wanted and sorted(passed) == sorted(wanted),
              f"SET_ROWS: {len(passed)} of {len(wanted)} cases with destination {name} passed",
              "\n".join(sorted(set(wanted) - set(passed))[:10]))
    failed = [c for c, given in cases if given not in ("OK", "not supported")]
    check(result.code == 0 and not failed, "SET_ROWS: no case failed", "\n".join(failed[:10]))


common.need(common.program("test-backend-ops"), common.PLUGIN)
common.main(set_rows, flash_attention)
