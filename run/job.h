/* One run of the prompt: what the parent wants and a child does. */
#ifndef VARVE_RUN_JOB_H
#define VARVE_RUN_JOB_H

#include "options.h"

/* Borrowed text; need not end with a 0. */
struct run_text {
    const char *bytes;
    size_t n;
};

/* What a child does with the probabilities along the text of the f16 run. */
enum run_reference {
    REFERENCE_NONE,
    REFERENCE_WRITE, /* this is the f16 run */
    REFERENCE_READ,
};

struct run_job {
    const struct run_options *options;
    const char *name; /* "varve", "stock" */
    const char *type_k, *type_v;
    const char *plugin; /* path of the back end, NULL: stock */
    struct run_text prompt;
    enum run_reference reference;
    int reference_file; /* shared by all children, so it is accessed by offset */
    bool warns;         /* the other runs would only repeat it */
};

#endif
