#include "child.h"

#include "args.h"
#include "stop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile sig_atomic_t running; /* process of the child, 0: none */
static volatile sig_atomic_t caught;  /* first signal, 0: none */

static void on_signal(int number) {
    const int saved = errno;
    const bool first = caught == 0;
    caught = first ? number : caught;
    if (running != 0) {
        kill((pid_t)running, first ? SIGTERM : SIGKILL);
    }
    if (!first) {
        _exit(128 + number);
    }
    errno = saved;
}

static sigset_t signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    return set;
}

void child_catch_signals(void) {
    const struct sigaction action = {
        .sa_handler = on_signal, .sa_mask = signals(), .sa_flags = SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN); /* a write to --json then fails with an error */
}

int child_signal(void) { return caught; }

/* Forks unless a signal came; signals are blocked meanwhile, so that none is lost in between. */
static pid_t start(child_work work, const void *job, const int ends[2]) {
    const sigset_t set = signals();
    sigset_t before;
    const pid_t parent = getpid();
    fflush(NULL);
    sigprocmask(SIG_BLOCK, &set, &before);
    const pid_t pid = caught == 0 ? fork() : -1;
    if (pid == 0) {
        close(ends[0]);
        stop_on_signal();
        sigprocmask(SIG_SETMASK, &before, NULL);
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* when the parent is killed */
        exit(getppid() == parent ? work(job, ends[1]) : EXIT_FAILURE);
    }
    if (pid < 0 && caught == 0) {
        cli_say("cannot start a process: %s", strerror(errno));
    }
    running = pid > 0 ? pid : 0;
    sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static bool ended_well(const char *name, int status) {
    if (WIFSIGNALED(status)) {
        cli_say("the run of %s was ended by signal %d (%s)%s", name, WTERMSIG(status),
                strsignal(WTERMSIG(status)),
                WTERMSIG(status) == SIGKILL
                    ? "; if memory ran out, lower -c or take a smaller model or cache type"
                    : "");
    } else if (WEXITSTATUS(status) > EXIT_FAILURE) {
        cli_say("the run of %s ended with exit code %d", name, WEXITSTATUS(status));
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
}

json_t *child_run(child_work work, const void *job, const char *name) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        cli_say("cannot make a pipe: %s", strerror(errno));
        return NULL;
    }
    const pid_t pid = start(work, job, ends);
    close(ends[1]);
    json_t *report = pid > 0 ? json_loadfd(ends[0], 0, NULL) : NULL;
    close(ends[0]);
    if (pid <= 0) {
        return NULL;
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    running = 0; /* between these two lines the number cannot have a new owner that we may kill */
    if (ended_well(name, status) && report != NULL) {
        return report;
    }
    json_decref(report);
    return NULL;
}
