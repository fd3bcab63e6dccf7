#include "gnuplot.h"

#include "args.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

/* Distinct for colour-blind readers too (Okabe and Ito 2008), dark enough on white. */
const char *const gnuplot_colours[GNUPLOT_N_COLOUR] = {"#0072b2", "#d55e00", "#009e73",
                                                       "#cc79a7", "#e69f00", "#56b4e9",
                                                       "#000000", "#7f7f00", "#7f007f"};

bool gnuplot_possible(const char *option) {
    if (system("command -v gnuplot >/dev/null 2>&1") == 0) return true;
    cli_say("%s: gnuplot is not installed, so no picture is drawn", option);
    return false;
}

/* Within single quotes gnuplot doubles them; a line cannot be broken there. */
void gnuplot_put_quoted(FILE *to, const char *text) {
    fputc('\'', to);
    for (; *text != '\0'; text++) {
        const bool is_control = (unsigned char)*text < ' ';
        fputs(*text == '\'' ? "''" : (char[]){is_control ? ' ' : *text, '\0'}, to);
    }
    fputc('\'', to);
}

static bool is_png(const char *path) {
    const char *const suffix = strrchr(path, '.');
    return suffix != NULL && strcmp(suffix, ".png") == 0;
}

FILE *gnuplot_open(const char *path, int width, int height) {
    FILE *const file = fopen(path, "ae"); /* before the pipe: gnuplot's own words are no help */
    if (file == NULL) {
        cli_say("%s: the picture cannot be written: %s", path, strerror(errno));
        return NULL;
    }
    fclose(file);
    signal(SIGPIPE, SIG_IGN);
    FILE *const to = popen("gnuplot", "w");
    if (to == NULL) {
        cli_say("gnuplot: %s", strerror(errno));
        return NULL;
    }
    if (is_png(path)) { /* two pixels for one, for screens that have them */
        fprintf(to, "set terminal pngcairo size %d,%d fontscale 1.5 linewidth 2 pointscale 2",
                2 * width, 2 * height);
    } else {
        fprintf(to, "set terminal svg size %d,%d dynamic", width, height);
    }
    fprintf(to, " font 'sans-serif,13' background '#ffffff'\nset output ");
    gnuplot_put_quoted(to, path);
    fprintf(to, "\nset grid lc rgb '#d8d8d8' lw 0.6\nset border lc rgb '#404040'\n"
                "set tics textcolor rgb '#202020'\n");
    return to;
}

bool gnuplot_close(const char *path, FILE *to) {
    fprintf(to, "unset output\n");
    if (pclose(to) == 0) return true;
    cli_say("%s: gnuplot could not draw the picture", path);
    return false;
}
