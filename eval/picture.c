#include "picture.h"

#include "gnuplot.h"
#include "labels.h"

#include "varve/varve.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pixels of the picture and of what is within its axes. */
enum { width = 960, height = 600, left = 78, right = 940, top = 78, bottom = 480 };

enum kind { UNIFORM, MIXED, WINDOW, UNROTATED, STOCK, N_KIND };

/* gnuplot's symbols: of points on the front, and of others. */
static const struct {
    const char *name;
    int colour, on_front, behind;
} kinds[N_KIND] = {{"one type", 0, 7, 6},
                   {"types of K and V differ", 2, 13, 12},
                   {"window of F16 rows", 1, 5, 4},
                   {"without rotation", 8, 11, 10},
                   {"stock", 6, 2, 2}};

struct point {
    const char *label;
    double bytes, mean, low, high;
    enum kind kind;
    bool on_front, is_default;
};

struct picture {
    struct point *points; /* in order of their bytes */
    int n;
    double x_low, x_high, y_low, y_high;
    double floor; /* where a mean of 0 is drawn, which has no logarithm; 0: there is none */
    double bits;  /* per value, for each byte per token */
};

/* ---- points --------------------------------------------------------------------------------- */

static double number(const json_t *object, const char *key, double otherwise) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

static const char *text(const json_t *object, const char *key) {
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "";
}

static enum kind kind_of(const json_t *config) {
    if (json_is_true(json_object_get(config, "stock"))) {
        return STOCK;
    }
    if (number(config, "window", 0) > 0) {
        return WINDOW;
    }
    if (json_is_false(json_object_get(config, "rotation"))) {
        return UNROTATED;
    }
    return strcmp(text(config, "type_k"), text(config, "type_v")) == 0 ? UNIFORM : MIXED;
}

static int by_bytes(const void *a, const void *b) {
    const struct point *p = a, *q = b;
    return p->bytes != q->bytes ? (p->bytes > q->bytes) - (p->bytes < q->bytes)
                                : (p->mean < q->mean) - (p->mean > q->mean);
}

static bool read_points(struct picture *p, const json_t *root) {
    const json_t *results = json_object_get(root, "results");
    p->points = calloc(json_array_size(results) + 1, sizeof(*p->points));
    for (size_t i = 0; p->points != NULL && i < json_array_size(results); i++) {
        const json_t *r = json_array_get(results, i), *config = json_object_get(r, "config");
        const json_t *bytes = json_object_get(r, "bytes");
        const json_t *kl = json_object_get(json_object_get(r, "all"), "kl");
        const json_t *mean = json_object_get(kl, "mean");
        const double value = number(mean, "value", NAN), per_token = number(bytes, "per_token", 0);
        if (isnan(value) || !(per_token > 0)) {
            continue;
        }
        p->points[p->n++] =
            (struct point){.label = text(config, "label"),
                           .bytes = per_token,
                           .mean = value,
                           .low = number(mean, "low", value),
                           .high = number(mean, "high", value),
                           .kind = kind_of(config),
                           .on_front = json_is_true(json_object_get(r, "on_front")),
                           .is_default = json_is_true(json_object_get(config, "default"))};
        p->bits = number(bytes, "bits_per_value", 0) / per_token;
    }
    if (p->n > 0) {
        qsort(p->points, (size_t)p->n, sizeof(*p->points), by_bytes);
    }
    return p->n > 0;
}

/* Room around the points; wide intervals may leave it. */
static void set_ranges(struct picture *p) {
    double low = INFINITY, high = 0;
    bool has_zero = false;
    for (int i = 0; i < p->n; i++) {
        const struct point *q = &p->points[i];
        has_zero = has_zero || !(q->mean > 0);
        if (q->mean > 0) {
            low = fmin(low, fmax(q->low, q->mean / 4));
            high = fmax(high, fmin(q->high, 4 * q->mean));
        }
    }
    if (!(high > 0)) {
        low = 1e-4;
        high = 1;
    }
    p->x_low = p->points[0].bytes / 1.06;
    p->x_high = p->points[p->n - 1].bytes * 1.1;
    p->y_low = low / 1.35;
    p->y_high = high * 1.35;
    if (has_zero) { /* a tenth of the height more */
        p->floor = p->y_low * pow(p->y_low / p->y_high, 0.06);
        p->y_low *= pow(p->y_low / p->y_high, 0.1);
    }
}

static double height_of(const struct picture *p, double mean) { return mean > 0 ? mean : p->floor; }

/* ---- axes ----------------------------------------------------------------------------------- */

/* 5,000: gnuplot would ask the locale. */
static void put_number(FILE *to, double value) {
    if (value >= 1000) {
        fprintf(to, "'%.0f,%03.0f' ", floor(value / 1000), fmod(value, 1000));
    } else {
        fprintf(to, "'%g' ", value);
    }
}

/* Of a logarithmic axis whose ends are low and high; `of` times what is written is the place. */
static void put_tics(FILE *to, const char *axis, double low, double high, double of) {
    static const double fine[] = {1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9}, coarse[] = {1, 2, 5};
    const bool is_long = high / low > 8;
    const int n = is_long ? 3 : 11;
    bool is_first = true;
    fprintf(to, "set %stics (", axis);
    for (int e = (int)floor(log10(low / of)); e <= log10(high / of); e++) {
        for (int i = 0; i < n; i++) {
            const double value = (is_long ? coarse : fine)[i] * pow(10, e);
            if (value * of >= low && value * of <= high) {
                fputs(is_first ? "" : ", ", to);
                put_number(to, value);
                fprintf(to, "%.8g", value * of);
                is_first = false;
            }
        }
    }
    fprintf(to, ")\n");
}

static void put_title(FILE *to, const json_t *root) {
    char title[256];
    const json_t *settings = json_object_get(root, "settings");
    const json_t *all = json_object_get(json_array_get(json_object_get(root, "results"), 0), "all");
    snprintf(title, sizeof(title),
             "varve %s: %.80s, mode %s, context of %.0f tokens, %.0f positions",
             text(root, "version"), text(root, "model"), text(settings, "mode"),
             number(settings, "context", 0), number(all, "positions", 0));
    fprintf(to, "set title ");
    gnuplot_put_quoted(to, title);
    fprintf(to, " noenhanced offset 0,0.4\n");
}

static void put_axes(FILE *to, const struct picture *p, const json_t *root) {
    put_title(to, root);
    fprintf(to,
            "set lmargin at screen %.6g\nset rmargin at screen %.6g\n"
            "set tmargin at screen %.6g\nset bmargin at screen %.6g\n",
            (double)left / width, (double)right / width, 1 - (double)top / height,
            1 - (double)bottom / height);
    fprintf(to,
            "set logscale xyx2 10\nset xrange [%.8g:%.8g]\nset x2range [%.8g:%.8g]\n"
            "set yrange [%.8g:%.8g]\nset xlabel 'bytes per token, everything counted'\n"
            "set ylabel 'mean KL divergence, nats'\n"
            "set x2label 'effective bits per cached value' offset 0,-0.5\n"
            "set xtics nomirror\nset key at screen 0.5, screen 0.015 center bottom horizontal "
            "maxrows 2 samplen 1.5 width 1\n",
            p->x_low, p->x_high, p->x_low, p->x_high, p->y_low, p->y_high);
    put_tics(to, "x", p->x_low, p->x_high, 1);
    put_tics(to, "x2", p->x_low, p->x_high, p->bits > 0 ? 1 / p->bits : 1);
    put_tics(to, "y", p->floor > 0 ? sqrt(p->floor * p->y_low) * 1.5 : p->y_low, p->y_high, 1);
    if (p->floor > 0) {
        fprintf(to, "set ytics add ('0' %.8g)\n", p->floor);
    }
}

/* ---- content -------------------------------------------------------------------------------- */

/* $front: steps from point to point of it. $p: points of one kind, on the front or behind. */
static void put_data(FILE *to, const struct picture *p) {
    double before = NAN;
    fprintf(to, "$front << EOD\n");
    for (int i = 0; i < p->n; i++) {
        const struct point *q = &p->points[i];
        if (q->on_front) {
            if (!isnan(before)) {
                fprintf(to, "%.8g %.8g\n", q->bytes, before);
            }
            before = height_of(p, q->mean);
            fprintf(to, "%.8g %.8g\n", q->bytes, before);
        }
    }
    fprintf(to, "%.8g %.8g\nEOD\n", p->x_high, isnan(before) ? p->y_low / 2 : before);
    for (int i = 0; i < 2 * N_KIND; i++) {
        fprintf(to, "$p%d << EOD\n", i);
        for (int j = 0; j < p->n; j++) {
            const struct point *q = &p->points[j];
            if ((int)q->kind == i / 2 && q->on_front == (i % 2 != 0)) {
                const double y = height_of(p, q->mean);
                fprintf(to, "%.8g %.8g %.8g %.8g\n", q->bytes, y,
                        q->low > 0 ? fmax(q->low, p->y_low) : y, q->mean > 0 ? q->high : y);
            }
        }
        fprintf(to, "EOD\n");
    }
}

static bool has(const struct picture *p, enum kind kind, bool on_front) {
    for (int i = 0; i < p->n; i++) {
        if (p->points[i].kind == kind && p->points[i].on_front == on_front) {
            return true;
        }
    }
    return false;
}

/* Stock's F16 differs from the reference by rounding alone: what is below says nothing. */
static void put_noise(FILE *to, const struct picture *p) {
    for (int i = 0; i < p->n; i++) {
        const struct point *q = &p->points[i];
        if (strcmp(q->label, "f16+stock") == 0 && q->mean > 0) {
            fprintf(to,
                    "set object 1 rectangle from graph 0, first %.8g to graph 1, graph 0 behind fc "
                    "rgb '#f0f0f0' fs solid noborder\n"
                    "set label 'below: less than two correct F16 runs differ' at graph 0.01, first "
                    "%.8g offset 0,-0.9 font ',11' tc rgb '#606060'\n",
                    q->mean, q->mean);
        }
    }
}

static double x_of(const struct picture *p, double bytes) {
    return left + log(bytes / p->x_low) / log(p->x_high / p->x_low) * (right - left);
}

static double y_of(const struct picture *p, double mean) {
    return bottom - log(height_of(p, mean) / p->y_low) / log(p->y_high / p->y_low) * (bottom - top);
}

/* The front's steps as thin boxes, two for each of its points; their number. */
static int front_boxes(const struct picture *p, struct label_box *boxes) {
    int n = 0;
    double x = NAN, y = NAN;
    for (int i = 0; i <= p->n; i++) {
        if (i < p->n && !p->points[i].on_front) {
            continue;
        }
        const double next_x = i < p->n ? x_of(p, p->points[i].bytes) : right;
        const double next_y = i < p->n ? y_of(p, p->points[i].mean) : y;
        if (!isnan(x)) {
            boxes[n++] = (struct label_box){x, next_x, y - 2, y + 2};
            boxes[n++] = (struct label_box){next_x - 2, next_x + 2, y, next_y};
        }
        x = next_x;
        y = next_y;
    }
    return n;
}

static void put_label(FILE *to, const struct label *l, const struct point *q) {
    if (l->is_far) {
        fprintf(to,
                "set arrow from screen %.5f, %.5f to screen %.5f, %.5f nohead back lc rgb "
                "'#b0b0b0' lw 0.8\n",
                l->x / width, 1 - l->y / height, l->near_x / width, 1 - l->near_y / height);
    }
    fprintf(to, "set label ");
    gnuplot_put_quoted(to, q->label);
    fprintf(to, " at screen %.5f, %.5f left noenhanced front font '%s,11' tc rgb '%s'\n",
            l->box.left / width, 1 - (l->box.top + l->box.bottom) / 2 / height,
            q->is_default ? "sans-serif:Bold" : "sans-serif",
            q->on_front || q->is_default ? "#202020" : "#606060");
}

static void put_labels(FILE *to, const struct picture *p) {
    struct label *labels = calloc((size_t)p->n, sizeof(*labels));
    struct label_box *lines = calloc(2 * (size_t)p->n + 2, sizeof(*lines));
    if (labels != NULL && lines != NULL) {
        for (int i = 0; i < p->n; i++) {
            const struct point *q = &p->points[i];
            labels[i] = (struct label){.x = x_of(p, q->bytes),
                                       .y = y_of(p, q->mean),
                                       .width = 7.3 * (double)strlen(q->label),
                                       .weight = 4 * q->is_default + 2 * q->on_front +
                                                 (q->kind == UNIFORM)};
        }
        const int n_line = front_boxes(p, lines);
        labels_place(labels, p->n, lines, n_line, (struct label_box){left, right, top, bottom});
        for (int i = 0; i < p->n; i++) {
            put_label(to, &labels[i], &p->points[i]);
        }
    }
    free(labels);
    free(lines);
}

static void put_plot(FILE *to, const struct picture *p) {
    fprintf(to, "plot $front using 1:2 with lines lc rgb '#404040' lw 1.5 title 'front'");
    for (int i = 0; i < 2 * N_KIND; i++) {
        const int kind = i / 2;
        const bool on_front = i % 2 != 0;
        if (!has(p, (enum kind)kind, on_front)) {
            continue;
        }
        const bool is_named = !on_front || !has(p, (enum kind)kind, false);
        fprintf(to, ", $p%d using 1:2:3:4 with yerrorbars lc rgb '%s' lw 1.2 pt %d ps 0.9 title ",
                i, gnuplot_colours[kinds[kind].colour],
                on_front ? kinds[kind].on_front : kinds[kind].behind);
        gnuplot_put_quoted(to, is_named ? kinds[kind].name : "");
    }
    for (int i = 0; i < p->n; i++) {
        if (p->points[i].is_default) {
            fprintf(to,
                    ", '-' using 1:2 with points pt 6 ps 2 lw 1.2 lc rgb '%s' title 'default of "
                    "varve run'\n%.8g %.8g\ne\n",
                    gnuplot_colours[kinds[p->points[i].kind].colour], p->points[i].bytes,
                    height_of(p, p->points[i].mean));
            return;
        }
    }
    fprintf(to, "\n");
}

bool picture_draw(const char *path, const json_t *root) {
    struct picture p = {0};
    FILE *to = read_points(&p, root) ? gnuplot_open(path, width, height) : NULL;
    if (to != NULL) {
        set_ranges(&p);
        put_axes(to, &p, root);
        put_noise(to, &p);
        put_labels(to, &p);
        put_data(to, &p);
        put_plot(to, &p);
    }
    free(p.points);
    return to != NULL && gnuplot_close(path, to);
}
