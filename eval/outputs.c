#include "outputs.h"

#include "args.h"
#include "gnuplot.h"
#include "json_file.h"
#include "out_file.h"
#include "page.h"
#include "picture.h"

#include <unistd.h>

static bool open_plot(const struct eval_options *o, struct eval_outputs *out) {
    if (!gnuplot_possible("--plot")) {
        return o->from_json == NULL; /* else there are the figures still */
    }
    const int fd = out_file_open("--plot", o->plot);
    out->plot = fd >= 0;
    return out->plot && close(fd) == 0;
}

bool outputs_open(const struct eval_options *o, struct eval_outputs *out) {
    *out = (struct eval_outputs){-1, -1, false};
    return (o->json == NULL || (out->json = json_file_open(o->json)) >= 0) &&
           (o->report == NULL || (out->report = out_file_open("--report", o->report)) >= 0) &&
           (o->plot == NULL || open_plot(o, out));
}

bool outputs_write(const struct eval_options *o, const struct eval_outputs *out, json_t *root) {
    bool ok = out->json < 0 || json_file_write(o->json, out->json, root);
    ok = (out->report < 0 || page_write(o->report, out->report, root)) && ok;
    return (!out->plot || picture_draw(o->plot, root)) && ok;
}

bool outputs_close(const struct eval_options *o, struct eval_outputs *out) {
    bool ok = out->json < 0 || json_file_close(o->json, out->json);
    ok = (out->report < 0 || out_file_close("--report", o->report, out->report)) && ok;
    *out = (struct eval_outputs){-1, -1, false};
    return ok;
}

/* What page and picture cannot do without. */
static bool is_figures(json_t *root, json_error_t *error) {
    json_t *results = NULL;
    size_t i = 0;
    json_t *r = NULL;
    if (json_unpack_ex(root, error, 0, "{s:o}", "results", &results) != 0) {
        return false;
    }
    json_array_foreach(results, i, r) {
        const char *label = NULL, *types[2];
        double bytes = 0, mean = 0;
        if (json_unpack_ex(r, error, 0, "{s:{s:s, s:s, s:s}, s:{s:F}, s:{s:{s:{s:F}}}}", "config",
                           "label", &label, "type_k", &types[0], "type_v", &types[1], "bytes",
                           "per_token", &bytes, "all", "kl", "mean", "value", &mean) != 0) {
            return false;
        }
    }
    return i > 0;
}

bool outputs_again(const struct eval_options *o) {
    json_error_t error;
    json_t *root = json_load_file(o->from_json, 0, &error);
    if (root == NULL && json_error_code(&error) == json_error_cannot_open_file) {
        cli_say("--from-json %s: cannot be read", o->from_json);
        return false;
    }
    if (root == NULL || !is_figures(root, &error)) {
        cli_say("--from-json %s: not what --json wrote: %s", o->from_json,
                error.text[0] != '\0' ? error.text : "no results");
        json_decref(root);
        return false;
    }
    struct eval_outputs out;
    bool ok = outputs_open(o, &out) && outputs_write(o, &out, root);
    ok = outputs_close(o, &out) && ok;
    json_decref(root);
    return ok;
}
