/* gl_ce_infer_mean.c - do the targets that follow from k = 1/rows look like targets?
 *
 *   t_ic = p_ic - r_ic rows
 *
 * True targets of classification are sparse: in each row at least half of the classes share one floor a >= 0, which is
 * the same in all rows (0, or s/C under smoothing), and no class lies below it.  A loss scaled by c gives
 * t' = (1-c) p + c t instead: below zero for c > 1, and for c < 1 spread out like p.  The test is relative to p,
 *
 *   |t_ic - a| <= 2 tolerance (p_ic + a),
 *
 * so that it sees (1-c) p at any size of p, unless p << a: there must be enough classes where it is not.  The floor is
 * a = min (t_ic + tolerance p_ic), which rounding of p cannot pull below the truth.  A uniform p would pass as floor
 * (1-c)/C: floors that hold more than a quarter of the mass are not believed.  Targets of a teacher network have no
 * floor and are refused.
 */
#include <math.h>
#include "glyder.h"
#include "gl_kernels.h" /* struct gl_kernels, GL_BLOCK */
#include "gl_softmax.h" /* gl_block, gl_softmax_row */
#include "gl_ce_infer_mean.h"

#define FLOOR_MASS_MAX 0.25
/* A scale c with |1 - c| above this must have shown, on average in one class of each row. */
#define SCALE_ERROR 0.2

struct targets {
    double floor;    /* min of t + tolerance p */
    double off_mass; /* largest |sum_c t - 1| of a row; NaN, and that stays, if a row holds NaN */
};

struct job {
    const struct gl_kernels *kernels;
    const struct gl_matrix *z, *r;
    double rows, tolerance, slack;
};

/* p and t of a block of a row. */
static void load_targets(const struct job *job, int64_t row, const struct gl_block *block, struct gl_softmax softmax,
                         double *p, double *t) {
    gl_block_exp(job->kernels, job->z, row, block, softmax.top, p);
    gl_block_load(job->kernels, job->r, row, block, 0, t);
    for (int64_t c = 0; c < block->n; c++) {
        p[c] /= softmax.total;
        t[c] = p[c] - t[c] * job->rows;
    }
}

static int is_active(const struct job *job, int64_t row) {
    double r[GL_BLOCK];
    struct gl_block block;
    for (gl_block_start(&block, job->r); block.n > 0; gl_block_next(&block, job->r)) {
        gl_block_load(job->kernels, job->r, row, &block, 0, r);
        for (int64_t c = 0; c < block.n; c++)
            if (r[c] != 0)
                return 1;
    }
    return 0;
}

static void survey_row(const struct job *job, int64_t row, struct targets *targets) {
    double p[GL_BLOCK], t[GL_BLOCK], mass = 0;
    struct gl_softmax softmax = gl_softmax_row(job->kernels, job->z, row);
    struct gl_block block;
    for (gl_block_start(&block, job->z); block.n > 0; gl_block_next(&block, job->z)) {
        load_targets(job, row, &block, softmax, p, t);
        for (int64_t c = 0; c < block.n; c++) {
            double raised = t[c] + job->tolerance * p[c];
            mass += t[c];
            targets->floor = raised < targets->floor ? raised : targets->floor;
        }
    }
    double off = fabs(mass - 1);
    if (off > targets->off_mass || isnan(off))
        targets->off_mass = off;
}

/* How many classes of the row lie on the floor; `telling` adds up those of them that a false k would have lifted off.
 */
static int64_t count_floor(const struct job *job, int64_t row, double floor, int64_t *telling) {
    double p[GL_BLOCK], t[GL_BLOCK];
    int64_t count = 0;
    struct gl_softmax softmax = gl_softmax_row(job->kernels, job->z, row);
    struct gl_block block;
    for (gl_block_start(&block, job->z); block.n > 0; gl_block_next(&block, job->z)) {
        load_targets(job, row, &block, softmax, p, t);
        for (int64_t c = 0; c < block.n; c++) {
            double allowed = 2 * job->tolerance * (p[c] + floor) + job->slack;
            int on_floor = t[c] - floor <= allowed;
            count += on_floor;
            *telling += on_floor && allowed < SCALE_ERROR * p[c];
        }
    }
    return count;
}

double gl_ce_infer_mean(const struct gl_kernels *kernels, const struct gl_matrix *z, const struct gl_matrix *r,
                        int64_t active, const struct gl_precision *precision) {
    struct job job = {.kernels = kernels, .z = z, .r = r, .rows = (double)active};
    job.tolerance = precision->tolerance;
    job.slack = 2 * precision->half_least * job.rows;
    struct targets targets = {.floor = INFINITY, .off_mass = 0};
    for (int64_t row = 0; row < z->rows; row++)
        if (is_active(&job, row))
            survey_row(&job, row, &targets);
    double floor_mass = targets.floor * (double)z->classes;
    if (!(targets.floor >= -job.slack && floor_mass <= FLOOR_MASS_MAX))
        return INFINITY;
    double floor = targets.floor > 0 ? targets.floor : 0;
    int64_t needed = z->classes < 4 ? 1 : (z->classes - 1) / 2;
    int64_t telling = 0;
    for (int64_t row = 0; row < z->rows; row++)
        if (is_active(&job, row) && count_floor(&job, row, floor, &telling) < needed)
            return INFINITY;
    return telling >= active ? targets.off_mass : INFINITY;
}
