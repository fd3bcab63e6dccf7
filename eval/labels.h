/* Places for the labels of points in a picture. */
#ifndef VARVE_EVAL_LABELS_H
#define VARVE_EVAL_LABELS_H

#include <stdbool.h>

struct label_box {
    double left, right, top, bottom; /* pixels, from the upper left corner */
};

struct label {
    double x, y, width; /* of the point; of the text, in pixels */
    int weight;         /* important ones are placed first */
    struct label_box box;
    double near_x, near_y; /* where a line to the point ends */
    bool is_far;           /* so that it needs one */
};

/* Greedy: each takes the place beside its point where it covers least of points, of labels that
 * were placed before, and of n_line lines, given as thin boxes (as eval/report/scatter.js does). */
void labels_place(struct label *labels, int n, const struct label_box *lines, int n_line,
                  struct label_box area);

#endif
