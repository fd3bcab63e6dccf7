#include "kernel/dot_vnni.h"

#include "kernel/score_bytes.h"

SCORE_QUANT(varve_score_q8_0_vnni, VARVE_FORMAT_Q8_0)
SCORE_QUANT(varve_score_q4_0_vnni, VARVE_FORMAT_Q4_0)
SCORE_QUANT(varve_score_q4_1_vnni, VARVE_FORMAT_Q4_1)
SCORE_QUANT(varve_score_q5_0_vnni, VARVE_FORMAT_Q5_0)
SCORE_QUANT(varve_score_q5_1_vnni, VARVE_FORMAT_Q5_1)
SCORE_QUANT(varve_score_iq4_nl_vnni, VARVE_FORMAT_IQ4_NL)
