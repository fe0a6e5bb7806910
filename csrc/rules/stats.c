/* stats.c - statistics by number and by name: one table made from GL_STATS. */
#include "stats.h"

#include <stddef.h>
#include <string.h>

static const struct {
    const char *name, *meaning;
} table[] = {
#define X(name, meaning) {#name, meaning},
    GL_STATS(X)
#undef X
};

static int in_range(int stat) {
    return stat >= 0 && stat < GL_STAT_COUNT;
}

const char *gl_stat_name(int stat) {
    return in_range(stat) ? table[stat].name : NULL;
}

const char *gl_stat_meaning(int stat) {
    return in_range(stat) ? table[stat].meaning : NULL;
}

int gl_stat_find(const char *name) {
    for (int i = 0; i < GL_STAT_COUNT; i++)
        if (strcmp(table[i].name, name) == 0)
            return i;
    return -1;
}
