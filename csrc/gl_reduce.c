/* gl_reduce.c - every inner product asked for among up to four vectors, in one pass over memory.
 *
 *   sums[i, j] = sum over all segments of a_i a_j,   a_i = plus_i or plus_i - minus_i
 *
 * Each segment is cut into blocks of GL_BLOCK values from its own start.  A block of each operand is converted to
 * double once, then each wanted pair is one dot product of two staged blocks: GL_LANES accumulators, folded in halves.
 * Block sums are added in the order of the list, with compensation.  Neither addresses nor the dispatch level enter
 * into that order, so neither changes a bit; a different split of the list does, within the bound.
 *
 * Bound, u = 2^-53: a value takes one rounding to form a difference (two of them in a product), one to multiply,
 * GL_BLOCK/GL_LANES additions in its lane and log2 GL_LANES = 4 to fold; adding N block sums costs one more rounding of
 * the result and N u^2.  With at most 3 + 32 + 4 = 39 roundings,
 *
 *   |computed - exact| <= u |exact| + (40 u + N u^2) sum |a_i a_j|     short of overflow and underflow,
 *
 * whatever the length: there is no growth with n until N nears 2^53.
 *
 * It will not skip NaN or infinity (the sum then shows them), split work over threads, or derive anything from a sum.
 */
#include <stddef.h>
#include "glyder.h"
#include "gl_common.h"  /* GL_NOINLINE, GL_INLINE */
#include "gl_fpenv.h"   /* gl_fpenv_enter, gl_fpenv_leave */
#include "gl_kernels.h" /* GL_BLOCK, struct gl_stream_kernels */
#include "gl_level.h"   /* gl_kernels_current */
#include "gl_segment.h" /* gl_segment_check_lists, gl_segment_at */

_Static_assert(GL_PAIR(GL_OPERANDS_MAX - 1, GL_OPERANDS_MAX - 1) + 1 == GL_PAIRS_MAX, "pairs of all operands");

/* sum + rest, where rest collects what the additions to sum lost (Knuth's two-sum, any order of magnitude). */
struct total {
    double sum, rest;
};

GL_INLINE void add(struct total *total, double term) {
    double sum = total->sum + term;
    double part = sum - total->sum;
    total->rest += (total->sum - (sum - part)) + (term - part);
    total->sum = sum;
}

/* After an infinity, NaN or an overflow inside two-sum the rest says nothing and the plain sum is the answer. */
GL_INLINE double value(const struct total *total) {
    return total->rest - total->rest == 0 ? total->sum + total->rest : total->sum;
}

struct job {
    const struct gl_operand *operand;
    int operands;
    uint32_t want;
    const struct gl_stream_kernels *kernels;
    struct total total[GL_PAIRS_MAX];
    const struct gl_segment *first, *second; /* the two vectors, if all that is wanted is one pair without minus */
    int pair;                                /* and the place of that pair */
};

static int is_wanted(const struct job *job, int i, int j) {
    return job->want >> GL_PAIR(i, j) & 1;
}

static int is_used(const struct job *job, int i) {
    int used = 0;
    for (int j = 0; j < job->operands; j++)
        used |= i <= j ? is_wanted(job, i, j) : is_wanted(job, j, i);
    return used;
}

static void stage(const struct job *job, int i, int64_t segment, int64_t start, int64_t n, double *out) {
    const struct gl_segment *plus = &job->operand[i].plus[segment];
    job->kernels->load[plus->dtype](out, gl_segment_at(plus, start), n);
    if (job->operand[i].minus != NULL) {
        const struct gl_segment *minus = &job->operand[i].minus[segment];
        job->kernels->load_minus[minus->dtype](out, gl_segment_at(minus, start), n);
    }
}

static void reduce_segment(struct job *job, int64_t segment) {
    double block[GL_OPERANDS_MAX][GL_BLOCK];
    int64_t length = job->operand[0].plus[segment].n;
    for (int64_t start = 0; start < length; start += GL_BLOCK) {
        int64_t n = length - start < GL_BLOCK ? length - start : GL_BLOCK;
        for (int i = 0; i < job->operands; i++)
            if (is_used(job, i))
                stage(job, i, segment, start, n, block[i]);
        for (int j = 0; j < job->operands; j++)
            for (int i = 0; i <= j; i++)
                if (is_wanted(job, i, j))
                    add(&job->total[GL_PAIR(i, j)], job->kernels->dot(block[i], block[j], n));
    }
}

/* A single pair gains nothing from staging: formed straight from the arrays it runs at the speed of memory, about twice
 * as fast.  Blocks, lanes and folds are those of the staged way, and so are the bits. */
static void find_plain_pair(struct job *job) {
    for (int j = 0; j < job->operands; j++)
        for (int i = 0; i <= j; i++)
            if (job->want == (uint32_t)1 << GL_PAIR(i, j) && job->operand[i].minus == NULL &&
                job->operand[j].minus == NULL) {
                job->first = job->operand[i].plus;
                job->second = job->operand[j].plus;
                job->pair = GL_PAIR(i, j);
            }
}

static void reduce_plain_segment(struct job *job, int64_t segment) {
    const struct gl_segment *first = &job->first[segment], *second = &job->second[segment];
    for (int64_t start = 0; start < first->n; start += GL_BLOCK) {
        int64_t n = first->n - start < GL_BLOCK ? first->n - start : GL_BLOCK;
        double term =
            job->kernels->dot_stored[first->dtype](gl_segment_at(first, start), gl_segment_at(second, start), n);
        add(&job->total[job->pair], term);
    }
}

static GL_NOINLINE void reduce(struct job *job, int64_t segments, double *sums) {
    find_plain_pair(job);
    for (int64_t s = 0; s < segments; s++)
        if (job->first != NULL && job->first[s].dtype == job->second[s].dtype)
            reduce_plain_segment(job, s);
        else
            reduce_segment(job, s);
    for (int p = 0; p < GL_PAIRS_MAX; p++)
        if (job->want >> p & 1)
            sums[p] = value(&job->total[p]);
}

static enum gl_status check(const struct gl_operand *operand, int operands, int64_t segments, uint32_t want) {
    if (operands < 1 || operands > GL_OPERANDS_MAX || operand == NULL)
        return GL_ERR_ARGUMENT;
    if (want >> GL_PAIR(0, operands) != 0)
        return GL_ERR_ARGUMENT;
    const struct gl_segment *list[2 * GL_OPERANDS_MAX];
    int lists = 0;
    for (int i = 0; i < operands; i++) {
        list[lists++] = operand[i].plus;
        if (operand[i].minus != NULL)
            list[lists++] = operand[i].minus;
    }
    return gl_segment_check_lists(list, lists, segments);
}

enum gl_status gl_reduce(const struct gl_operand *operand, int operands, int64_t segments, uint32_t want,
                         double sums[GL_PAIRS_MAX]) {
    enum gl_status status = sums == NULL ? GL_ERR_ARGUMENT : check(operand, operands, segments, want);
    if (status != GL_OK)
        return status;
    struct job job = {.operand = operand, .operands = operands, .want = want, .kernels = &gl_kernels_current()->stream};
    gl_fpenv saved = gl_fpenv_enter();
    reduce(&job, segments, sums);
    gl_fpenv_leave(saved);
    return GL_OK;
}

enum gl_status gl_reduce_each(const struct gl_operand *operand, int operands, int64_t segments, uint32_t want,
                              double (*sums)[GL_PAIRS_MAX]) {
    enum gl_status status = sums == NULL && segments > 0 ? GL_ERR_ARGUMENT : check(operand, operands, segments, want);
    if (status != GL_OK)
        return status;
    gl_fpenv saved = gl_fpenv_enter();
    for (int64_t s = 0; s < segments; s++) {
        struct gl_operand one[GL_OPERANDS_MAX];
        for (int i = 0; i < operands; i++)
            one[i] = (struct gl_operand){operand[i].plus + s, operand[i].minus ? operand[i].minus + s : NULL};
        struct job job = {.operand = one, .operands = operands, .want = want, .kernels = &gl_kernels_current()->stream};
        reduce(&job, 1, sums[s]);
    }
    gl_fpenv_leave(saved);
    return GL_OK;
}
