/* The command line: a table of subcommands. */
#include "args.h"

#include "varve/varve.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cmd_version(int argc, char **argv) {
    (void)argc;
    (void)argv;
    printf("varve %s\n", varve_version());
    return EXIT_SUCCESS;
}

static int cmd_help(int argc, char **argv);

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *title; /* argv[0] of the subcommand */
    const char *purpose;
    bool has_help; /* answers to --help */
} commands[] = {
    {"run", cmd_run, "varve run", "answer a prompt; compare with stock llama.cpp", true},
    {"exec", cmd_exec, "varve exec", "run a llama.cpp program with attention by varve", true},
    {"plan", cmd_plan, "varve plan", "say what a model takes in memory, and what fits", true},
    {"eval", cmd_eval, "varve eval", "measure what cache types and windows do to a model", true},
    {"bench", cmd_bench, "varve bench", "time attention beside stock ggml on this machine", true},
    {"verify", cmd_verify, "varve verify", "check every kernel that this CPU can run", true},
    {"version", cmd_version, "varve version", "print the version", false},
    {"help", cmd_help, "varve help", "print this text, or the help of a subcommand", false},
};
enum { n_command = sizeof(commands) / sizeof(commands[0]) };

static int find_command(const char *name) {
    for (int i = 0; i < n_command; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static void print_help(FILE *to) {
    fputs("Usage: varve COMMAND [ARGUMENTS]\n"
          "Attention over a mixed-precision KV cache on CPUs, for stock llama.cpp.\n\n"
          "Commands:\n",
          to);
    for (int i = 0; i < n_command; i++) {
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].purpose);
    }
    fputs("\nExamples:\n"
          "  varve run --chat -p 'What is a glacier?'\n"
          "  varve exec --ctk q4_0 --ctv q4_0 -- llama-server -m model.gguf -c 32768\n\n"
          "`varve COMMAND --help` says more about one of them.\n",
          to);
}

static int run_command(int i, int argc, char **argv) {
    char title[64];
    snprintf(title, sizeof(title), "%s", commands[i].title);
    argv[0] = title;
    return commands[i].run(argc, argv);
}

static int cmd_help(int argc, char **argv) {
    const int i = argc > 1 ? find_command(argv[1]) : -1;
    if (i < 0 || !commands[i].has_help) {
        print_help(stdout);
        return EXIT_SUCCESS;
    }
    char help[] = "--help";
    char *help_argv[] = {NULL, help, NULL};
    return run_command(i, 2, help_argv);
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name == NULL) {
        print_help(stderr);
        return 64; /* EX_USAGE, as argp has it */
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "-?") == 0) {
        name = "help";
    } else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        name = "version";
    }
    const int i = find_command(name);
    if (i < 0) {
        cli_say("no command '%s'; `varve help` lists them", name);
        return 64;
    }
    return run_command(i, argc - 1, argv + 1);
}
