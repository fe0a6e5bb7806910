/* gl_stats.c - statistics by number and by name: one table made from GL_STATS. */
#include "gl_stats.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static const struct {
    const char *name, *meaning;
    size_t offset;
} table[] = {
#define X(name, meaning) {#name, meaning, offsetof(struct gl_stats, name)},
    GL_STATS(X)
#undef X
};

_Static_assert(GL_STAT_COUNT <= 32, "the mask has one bit per statistic");

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

int gl_stats_set(struct gl_stats *stats, int stat, double value) {
    if (!in_range(stat))
        return -1;
    memcpy((char *)stats + table[stat].offset, &value, sizeof value);
    stats->have |= (uint32_t)1 << stat;
    return 0;
}

int gl_stats_finite(const struct gl_stats *stats, uint32_t wanted) {
    for (int i = 0; i < GL_STAT_COUNT; i++) {
        double value;
        if (!(wanted >> i & 1))
            continue;
        memcpy(&value, (const char *)stats + table[i].offset, sizeof value);
        if (!isfinite(value))
            return 0;
    }
    return 1;
}
