/* What the subcommands of the command line share. */
#ifndef VARVE_CLI_ARGS_H
#define VARVE_CLI_ARGS_H

#include <stdbool.h>
#include <stdint.h>

#include "varve/varve.h"

/* Exit codes of a launcher, as env(1) and nohup(1) have them. */
enum {
    EXIT_LAUNCHER = 125,
    EXIT_NOT_EXECUTABLE = 126,
    EXIT_NOT_FOUND = 127,
};

/* One line to stderr: "varve: ...". */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The canonical name of a cache type, or NULL after a line that lists the known ones. */
const char *cli_cache_type(const char *option, const char *value);

/* The canonical name of an ISA level that this CPU has, or NULL after a line. */
const char *cli_isa(const char *value);

/* The arithmetic of a name, default included. False after a line. */
bool cli_class(const char *value, enum varve_arithmetic *out);

/* Values of options. False after a line that says what was expected. */
bool cli_integer(const char *option, const char *value, int64_t min, int64_t max, int64_t *out);
bool cli_bytes(const char *option, const char *value, int64_t *out);     /* 64M is 64 << 20 */
bool cli_tiers(const char *option, const char *value, const char **out); /* f16:W or none */
bool cli_sinks(const char *option, const char *value, int64_t *out);     /* rows */

/* CPUs that this process may use: the default number of threads. */
int64_t cli_usable_cpus(void);

/* Memory that can be had without swapping, in bytes; 0 when the system does not say. */
int64_t cli_available_memory(void);

/* Subcommands. argv[0] is the name to show in messages, as in "varve exec". */
int cmd_exec(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_plan(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_verify(int argc, char **argv);

#endif
