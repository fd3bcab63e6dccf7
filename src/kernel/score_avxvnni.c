#include "kernel/dot_avxvnni.h"

#include "kernel/score_bytes.h"

SCORE_QUANT(varve_score_q8_0_avxvnni, VARVE_FORMAT_Q8_0)
SCORE_QUANT(varve_score_q4_0_avxvnni, VARVE_FORMAT_Q4_0)
SCORE_QUANT(varve_score_q4_1_avxvnni, VARVE_FORMAT_Q4_1)
SCORE_QUANT(varve_score_q5_0_avxvnni, VARVE_FORMAT_Q5_0)
SCORE_QUANT(varve_score_q5_1_avxvnni, VARVE_FORMAT_Q5_1)
SCORE_QUANT(varve_score_iq4_nl_avxvnni, VARVE_FORMAT_IQ4_NL)
