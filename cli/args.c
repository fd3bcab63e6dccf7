#include "args.h"

#include "varve/varve.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

void cli_say(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("varve: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

static void append(char *list, size_t list_bytes, const char *name) {
    const size_t used = strlen(list);
    snprintf(list + used, list_bytes - used, "%s%s", used > 0 ? ", " : "", name);
}

const char *cli_cache_type(const char *option, const char *value) {
    enum varve_format format;
    if (varve_format_parse(value, &format) == VARVE_OK) {
        return varve_format_name(format);
    }
    char list[256] = "";
    for (int i = 0; i < VARVE_FORMAT_COUNT; i++) {
        append(list, sizeof(list), varve_format_name((enum varve_format)i));
    }
    cli_say("%s %s: no such cache type; known are %s", option, value, list);
    return NULL;
}

const char *cli_isa(const char *value) {
    char list[256] = "";
    const char *name = NULL;
    bool available = false;
    for (int32_t i = 0; (name = varve_isa_name(i, &available)) != NULL; i++) {
        if (strcasecmp(name, value) == 0 && available) {
            return name;
        }
        if (strcasecmp(name, value) == 0) {
            cli_say("--isa %s: this CPU does not have it", value);
            return NULL;
        }
        append(list, sizeof(list), name);
    }
    cli_say("--isa %s: no such level; known are %s", value, list);
    return NULL;
}
