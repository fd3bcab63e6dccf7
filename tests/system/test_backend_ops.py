#!/usr/bin/env python3
"""llama.cpp's own operator tests, run on varve.

test-backend-ops does not count cases that a back end declines: one that takes nothing passes with
0/0. So it is asserted how many of all cases varve takes, and that what is declined is declined for
its format. Computed are those of USUAL; VARVE_BACKEND_OPS=all computes all of them (minutes). Nearly
all the time is stock's, whose results are the reference.
"""
import csv
import io
import os
import re

import common
from common import check

ALL = os.environ.get("VARVE_BACKEND_OPS") == "all"
N_ATTENTION, N_ATTENTION_TAKEN = 5308, 5300
# Left out are 512 queries against 16,384 rows, and against 4,096 but for the least cases (long rows
# are met by fewer queries too). And of the product of shapes and options, for types that are not
# F16: 32 queries with sinks, 75 without, and both with several sequences. Each type remains with
# each head size, number of queries, mask and option, and all of it with F16.
USUAL = (r"^(?!.*kv=16384,nb=512,|hsk=256,.*nr23=\[(4|6|12),1\],kv=4096,nb=512,"
         r"|hsk=(64|72),hsv=(64|72),nh=4,nr23=\[.,(3\],.*nb=(32|75),"
         r"|1\],kv=(113|512|1024),(nb=32,mask=.,sinks=1|nb=75,mask=.,sinks=0)).*"
         r"type_K=(?!f16).*kv_view=1)")
N_USUAL_MIN = 4200
CASE = re.compile(r"^\s*((?:FLASH_ATTN_EXT|SET_ROWS)\(.*\)): (.*)$")


def run_cases(op, backend, env=None, timeout=1800, params=None):
    """[(case, "OK", "FAIL" or "not supported")], one of them twice, and the Result."""
    command = [common.program("test-backend-ops"), "test", "-b", backend, "-o", op,
               "-j", os.cpu_count(),  # workers with a back end each: contexts side by side
               *(["-p", params] if params else [])]
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


def taken_cases():
    """Parameters of all cases, and of those that varve takes."""
    command = [common.program("test-backend-ops"), "support", "-b", "VARVE", "-o",
               "FLASH_ATTN_EXT", "--output", "csv"]
    result = common.run(command, env=common.plugged())
    rows = list(csv.DictReader(io.StringIO(result.out)))
    return ([row["op_params"] for row in rows],
            [row["op_params"] for row in rows if row["supported"] == "1"])


def flash_attention():
    every, taken = taken_cases()
    check(len(every) == N_ATTENTION, f"FLASH_ATTN_EXT: {N_ATTENTION} cases",
          f"{len(every)} were listed; another version of llama.cpp?")
    check(len(taken) == N_ATTENTION_TAKEN, f"FLASH_ATTN_EXT: {N_ATTENTION_TAKEN} are taken",
          len(taken))
    set_of_taken = set(taken)
    wanted = every if ALL else [case for case in every if re.search(USUAL, case)]
    for key in ("type_K", "type_V", "hsk", "hsv", "nh", "nr23", "kv", "nb", "mask", "sinks",
                "max_bias", "logit_softcap", "permute", "v_is_view_of_k", "n_kv_max"):
        values = [set(re.findall(rf"\b{key}=(\[[^]]*\]|[^,]*)", "\n".join(cases)))
                  for cases in (every, wanted)]
        check(values[0] == values[1] != set(), f"FLASH_ATTN_EXT: each {key} of all is computed",
              values[0] - values[1])
    cases, result = run_cases("FLASH_ATTN_EXT", "VARVE", common.plugged(),
                              params=None if ALL else USUAL)
    passed = of_verdict(cases, "OK")
    declined = of_verdict(cases, "not supported")
    failed = [c for c, given in cases if given not in ("OK", "not supported")]
    common.note(f"{len(passed)} passed, {len(failed)} failed, {len(declined)} declined of "
                f"{len(cases)} cases in {result.seconds:.0f} s")
    check(result.code == 0 and not failed, "FLASH_ATTN_EXT: no case failed",
          "\n".join(failed[:10]) or result)
    ran = len([case for case in wanted if case in set_of_taken])
    check(len(passed) == ran >= (N_ATTENTION_TAKEN if ALL else N_USUAL_MIN),
          f"FLASH_ATTN_EXT: all {ran} cases that are taken ran and passed", len(passed))
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
