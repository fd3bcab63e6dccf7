#include "labels.h"

#include <math.h>

enum { n_side = 8, n_place = 3 * n_side, most_weight = 8 };

static double overlap(const struct label_box *a, const struct label_box *b) {
    const double w = fmin(a->right, b->right) - fmax(a->left, b->left);
    const double h = fmin(a->bottom, b->bottom) - fmax(a->top, b->top);
    return w > 0 && h > 0 ? w * h : 0;
}

static bool is_inside(const struct label_box *box, const struct label_box *area) {
    return box->left >= area->left && box->right <= area->right && box->top >= area->top &&
           box->bottom <= area->bottom;
}

/* Right, left, four corners, above and below; near, farther, far. */
static struct label at_place(const struct label *l, int place) {
    static const struct {
        double dx, dy, anchor; /* anchor: the part of the width that is left of it */
    } sides[n_side] = {{1, 0, 0},       {-1, 0, 1},       {0.75, -0.75, 0}, {-0.75, -0.75, 1},
                       {0.75, 0.75, 0}, {-0.75, 0.75, 1}, {0, -1.3, 0.5},   {0, 1.3, 0.5}};
    static const double distances[] = {9, 22, 38};
    const double d = distances[place / n_side];
    struct label moved = *l;
    moved.is_far = place >= n_side;
    moved.near_x = l->x + sides[place % n_side].dx * d;
    moved.near_y = l->y + sides[place % n_side].dy * d;
    moved.box.left = moved.near_x - sides[place % n_side].anchor * l->width;
    moved.box.right = moved.box.left + l->width;
    moved.box.top = moved.near_y - 7;
    moved.box.bottom = moved.near_y + 7;
    return moved;
}

struct scene {
    struct label *labels;
    int n, n_line;
    const struct label_box *lines;
    struct label_box area;
};

static double cost(const struct label *l, const struct scene *s) {
    double sum = is_inside(&l->box, &s->area) ? 0 : 1e4;
    for (int i = 0; i < s->n; i++) {
        const struct label *other = &s->labels[i];
        const struct label_box point = {other->x - 7, other->x + 7, other->y - 7, other->y + 7};
        sum += 8 * overlap(&l->box, &point);
        sum += 8 * overlap(&l->box, &other->box); /* empty before it is placed */
    }
    for (int i = 0; i < s->n_line; i++) {
        sum += overlap(&l->box, &s->lines[i]);
    }
    return sum;
}

static void place(const struct scene *s, int i) {
    struct label best = s->labels[i];
    double least = INFINITY;
    for (int j = 0; j < n_place; j++) {
        const struct label moved = at_place(&s->labels[i], j);
        const double sum = cost(&moved, s) + 6 * j;
        if (sum < least) {
            least = sum;
            best = moved;
        }
    }
    s->labels[i] = best;
}

void labels_place(struct label *labels, int n, const struct label_box *lines, int n_line,
                  struct label_box area) {
    const struct scene s = {labels, n, n_line, lines, area};
    for (int weight = most_weight; weight >= 0; weight--) {
        for (int i = 0; i < n; i++) {
            if (labels[i].weight == weight) {
                place(&s, i);
            }
        }
    }
}
