#include "kernel/dot_avxvnni.h"

#include "kernel/pack.h"

PACKK(varve_packk_q8_0_avxvnni, VARVE_FORMAT_Q8_0)
PACKK(varve_packk_q4_0_avxvnni, VARVE_FORMAT_Q4_0)
PACKK(varve_packk_q4_1_avxvnni, VARVE_FORMAT_Q4_1)
PACKK(varve_packk_q5_0_avxvnni, VARVE_FORMAT_Q5_0)
PACKK(varve_packk_q5_1_avxvnni, VARVE_FORMAT_Q5_1)
PACKK(varve_packk_iq4_nl_avxvnni, VARVE_FORMAT_IQ4_NL)

void varve_packscore_q8_avxvnni(const struct varve_packscore_args *args) { packscore(args); }
