/* gl_ce_infer.c - the row weights of a cross-entropy, read off its gradient by the logits.
 *
 *   r_ic = k_i p_ic - tau_ic,   p = softmax(z),   k_i = sum_c tau_ic
 *
 * With p known, r tells k_i wherever something is known of the targets tau.  Three kinds of targets are tried:
 *
 *   hard    tau_ic = k_i [c = y_i].  y_i is where r_i is least, and k_i the least-squares factor of p_i - onehot(y_i).
 *   smooth  tau_ic = k (a + (1 - C a)[c = y_i]).  For c != y_i, r = k p - k a is a line in p, common to all rows; both
 *           coefficients are fitted.  Needs no assumption on the scale of the loss.
 *   mean    k = 1/rows.  t = p - r/k must lie on the simplex, and in each row half of the classes must share one floor.
 *           gl_ce_infer_mean.c.
 *
 * Misfits.  All of r sits in one entry per row, so an error of the other entries would vanish beside it: the entries
 * y_i and the others are judged apart, each by root of (sum of squared errors / sum of squares), and the larger counts.
 * Under hard targets the others without the class of largest p are judged once more by themselves, for where the model
 * is sure and wrong that class hides them.
 * Where p_y is near 1, the loss computes p_y - 1 with an absolute error of up to 6 units of rounding u (seen in
 * torch's float32); 8 u k_i is forgiven there, and where 1 - p_y < sqrt(u), entry y takes no part in the fit.  In the
 * others half of the dtype's smallest number is forgiven, for they may have been rounded to nothing; what is no larger
 * proves nothing either.
 *
 * How large k may be.  The line's height b = k a is measured where p is small, its slope k where it is not.  Where all
 * p are, any k would do, with a = b/k: the slope must explain 4 times its errors in root mean square, and a must hold
 * the mass C a >= 1e-3 that a smoothing has, so that k <= 1000 C b.  For 2 classes, where r shows one number per row,
 * every row must agree with the common k by itself, each entry to within (tolerance + 2 u |log p|) k p and what is
 * forgiven; where u |log p| exceeds the tolerance, or k p is lost in the dtype's smallest numbers, agreement tells
 * nothing.  At least 8 rows must tell, and among them each label that there is: class weights would set the two apart.
 *
 * Tolerances lie an order of magnitude above what torch's own rounding makes, which is not u but u |log p| in p.
 *
 * What cannot be decided.  Where all p are uniform to within the tolerance, smoothing by s looks hard with k shortened
 * by 1 - s.  Class weights of 2 classes look like none where they agree to within the tolerance.  Any loss that sees
 * the logits through p_y alone (focal loss) is hard with a factor of its own in each row.
 */
#include <stddef.h>
#include <math.h>
#include "glyder.h"
#include "gl_common.h"        /* GL_NOINLINE */
#include "gl_level.h"         /* gl_kernels_current */
#include "gl_fpenv.h"         /* gl_fpenv_enter, gl_fpenv_leave */
#include "gl_ce_infer_mean.h" /* gl_precision, gl_ce_infer_mean */
#include "gl_kernels.h"       /* struct gl_kernels, GL_BLOCK */
#include "gl_softmax.h"       /* gl_block, gl_softmax_top */

static const struct gl_precision precisions[GL_DTYPE_COUNT] = {
    [GL_F64] = {.unit = 0x1p-53, .half_least = 0, .tolerance = 1e-7},
    [GL_F32] = {.unit = 0x1p-24, .half_least = 0x1p-150, .tolerance = 1e-3},
    [GL_F16] = {.unit = 0x1p-11, .half_least = 0x1p-25, .tolerance = 1e-2},
    [GL_BF16] = {.unit = 0x1p-8, .half_least = 0x1p-134, .tolerance = 5e-2},
};

/* Points (rows, or entries of rows) that leave enough beyond what is fitted to judge by. */
#define POINTS_MIN 8
/* Mass of the floor up to which smoothing is believed: small squared errors also look like a line, with all of it. */
#define SMOOTH_MASS_MAX 0.5
/* Mass of the floor from which on it is believed, and errors of the line as a part of what its slope explains. */
#define SMOOTH_MASS_MIN 1e-3
#define SLOPE_ERROR_MAX 0.25
/* Units of rounding forgiven in p_y - 1. */
#define LABEL_ROUNDINGS 8

struct job {
    const struct gl_kernels *kernels;
    const struct gl_matrix *z, *r;
    const struct gl_precision *precision;
};

/* ---------------------------------------------------------------- one row */

/* Two classes of a row are special: `label`, where r is least, and `top`, where p is largest.  Under smoothing the
 * label proper is one of the two: it is not where r is least only if p there exceeds 1/2.  The others are the rest. */
struct entry {
    int64_t class;
    double p, r;
};

struct row {
    int active;
    struct entry label, top; /* may be the same class */
    double p, pp, rp, rr, r; /* sums over the rest */
};

static int has_two(const struct row *row) {
    return row->top.class != row->label.class;
}

/* Of several least r the one with the largest logit is meant, for all may have been rounded to 0.  Entries hold logits
 * in place of p here.  NaN makes a row active, and its sums carry it on. */
static struct row find_entries(const struct gl_kernels *kernels, const struct gl_matrix *z, const struct gl_matrix *r,
                               int64_t index) {
    double zs[GL_BLOCK], rs[GL_BLOCK];
    struct row row = {.active = 0, .label = {0, -INFINITY, INFINITY}, .top = {0, -INFINITY, 0}};
    struct gl_block block;
    for (gl_block_start(&block, z); block.n > 0; gl_block_next(&block, z)) {
        gl_block_load(kernels, z, index, &block, -INFINITY, zs);
        gl_block_load(kernels, r, index, &block, 0, rs);
        for (int64_t c = 0; c < block.n; c++) {
            struct entry entry = {block.start + c, zs[c], rs[c]};
            row.active |= entry.r != 0;
            if (entry.r < row.label.r || (entry.r == row.label.r && entry.p > row.label.p))
                row.label = entry;
            if (entry.p > row.top.p || block.start + c == 0)
                row.top = entry;
        }
    }
    return row;
}

/* Takes an entry out of the block, if it is there. */
static void take(struct entry *entry, const struct gl_block *block, double *e, double *r) {
    int64_t at = entry->class - block->start;
    if (at < 0 || at >= block->n)
        return;
    entry->p = e[at];
    e[at] = 0;
    r[at] = 0;
}

static struct row scan_row(const struct gl_kernels *kernels, const struct gl_matrix *z, const struct gl_matrix *r,
                           int64_t index) {
    struct row row = find_entries(kernels, z, r, index);
    if (!row.active)
        return row;
    double e[GL_BLOCK], rs[GL_BLOCK], top = row.top.p;
    struct gl_block block;
    for (gl_block_start(&block, z); block.n > 0; gl_block_next(&block, z)) {
        gl_block_exp(kernels, z, index, &block, top, e);
        gl_block_load(kernels, r, index, &block, 0, rs);
        take(&row.label, &block, e, rs);
        if (has_two(&row))
            take(&row.top, &block, e, rs);
        row.p += kernels->softmax.sum(e, block.padded);
        row.pp += kernels->stream.dot(e, e, block.padded);
        row.rp += kernels->stream.dot(rs, e, block.padded);
        row.rr += kernels->stream.dot(rs, rs, block.padded);
        row.r += kernels->softmax.sum(rs, block.padded);
    }
    if (!has_two(&row))
        row.top = row.label;
    double total = row.p + row.label.p + (has_two(&row) ? row.top.p : 0);
    row.label.p /= total;
    row.top.p /= total;
    row.p /= total;
    row.pp /= total * total;
    row.rp /= total;
    return row;
}

/* ---------------------------------------------------------------- judging */

/* Squared errors and squares, of the label entries, of all others, and of the rests alone where they are judged. */
struct errors {
    double label, label_scale, other, other_scale, rest, rest_scale;
};

static double positive(double x) {
    return x < 0 ? 0 : x;
}

/* NaN, when there is nothing to judge by: it passes no test. */
static double misfit_of(const struct errors *errors) {
    double label = sqrt(errors->label / errors->label_scale), other = sqrt(errors->other / errors->other_scale);
    double worse = label > other || label != label ? label : other;
    double rest = errors->rest_scale > 0 ? sqrt(errors->rest / errors->rest_scale) : 0;
    return rest > worse ? rest : worse;
}

/* ---------------------------------------------------------------- hard targets */

/* The row as hard targets see it: entry y, and the sums over all other classes.  `q` = 1 - p_y, not subtracted. */
struct hard_row {
    double ry, q, pp, rp, rr;
};

static struct hard_row hard_row(const struct row *row) {
    struct hard_row hard = {row->label.r, row->p, row->pp, row->rp, row->rr};
    if (has_two(row)) {
        hard.q += row->top.p;
        hard.pp += row->top.p * row->top.p;
        hard.rp += row->top.r * row->top.p;
        hard.rr += row->top.r * row->top.r;
    }
    return hard;
}

static int is_unsure(const struct hard_row *row, const struct gl_precision *precision) {
    return row->q * row->q < precision->unit;
}

/* Least squares over the row, without entry y where that is mostly rounding.  A row whose other classes have no
 * probability that a double could square has no curvature either: 0. */
static double hard_weight(const struct hard_row *row, const struct gl_precision *precision) {
    if (row->q < 1e-140)
        return 0;
    return positive(is_unsure(row, precision) ? row->rp / row->pp
                                              : (row->rp - row->ry * row->q) / (row->pp + row->q * row->q));
}

/* The rests by themselves, for beside the top of a row that is wrong they are small. */
static void add_rest_errors(struct errors *errors, const struct row *row, double weight, int64_t entries,
                            const struct gl_precision *precision) {
    double forgiven = (double)entries * precision->half_least * precision->half_least;
    errors->rest += positive(row->rr - 2 * weight * row->rp + weight * weight * row->pp - forgiven);
    errors->rest_scale += positive(row->rr - forgiven);
}

static void add_hard_errors(struct errors *errors, const struct hard_row *row, double weight, int64_t others,
                            const struct gl_precision *precision) {
    double forgiven = (double)others * precision->half_least * precision->half_least;
    double label = positive(fabs(row->ry + weight * row->q) - LABEL_ROUNDINGS * precision->unit * weight);
    errors->other += positive(row->rr - 2 * weight * row->rp + weight * weight * row->pp - forgiven);
    errors->other_scale += positive(row->rr - forgiven);
    errors->label += label * label;
    errors->label_scale += row->ry * row->ry;
}

/* ---------------------------------------------------------------- the scan */

/* What one pass over the matrices leaves behind, over active rows. */
struct sums {
    int64_t rows;
    struct errors hard;          /* of hard targets, each row with its own weight */
    double sure_max;             /* largest weight of a row that was fitted with entry y */
    double wrong;                /* sum of 1 - p_y */
    double fit_above, fit_below; /* least squares for one hard weight common to all rows, as a fraction */
    double n, p, pp, rp, rr, r;  /* over the rests of all rows */
};

static void add_row(struct sums *sums, const struct row *row, int64_t classes, const struct gl_precision *precision) {
    struct hard_row hard = hard_row(row);
    sums->rows += 1;
    sums->wrong += hard.q;
    sums->fit_above += hard.rp;
    sums->fit_below += hard.pp;
    if (!is_unsure(&hard, precision)) {
        sums->fit_above -= hard.ry * hard.q;
        sums->fit_below += hard.q * hard.q;
    }
    sums->n += (double)(classes - 1 - has_two(row));
    sums->p += row->p;
    sums->pp += row->pp;
    sums->rp += row->rp;
    sums->rr += row->rr;
    sums->r += row->r;
}

/* Until the verdict k holds marks: NaN for a row without gradient, and -k_i for a weight fitted without entry y. */
static void scan(const struct job *job, double *k, struct sums *sums) {
    for (int64_t i = 0; i < job->z->rows; i++) {
        struct row row = scan_row(job->kernels, job->z, job->r, i);
        k[i] = NAN;
        if (!row.active)
            continue;
        add_row(sums, &row, job->z->classes, job->precision);
        struct hard_row hard = hard_row(&row);
        double weight = hard_weight(&hard, job->precision);
        add_hard_errors(&sums->hard, &hard, weight, job->z->classes - 1, job->precision);
        add_rest_errors(&sums->hard, &row, weight, job->z->classes - 1 - has_two(&row), job->precision);
        int unsure = is_unsure(&hard, job->precision);
        if (!unsure && weight > sums->sure_max)
            sums->sure_max = weight;
        k[i] = unsure ? -weight : weight;
    }
}

/* ---------------------------------------------------------------- one weight for all rows */

/* Two classes show one number per row, so that a weight for each row could explain anything: one for all.  Rows that
 * are surer than their smoothed targets look like hard rows of the other class with a small weight; but a model that
 * is wrong throughout would be right with its classes exchanged, and is not believed in. */
#define WRONG_MAX 0.9

/* The rows by their labels: all of them, and those whose r tells their weight. */
struct votes {
    int64_t rows[2], telling[2];
};

/* Where |z| is large, p is off by u |log p|; where r is small, by half the least number. */
static int is_telling(double p, double weight, const struct gl_precision *precision) {
    return precision->unit * fabs(log(p)) <= precision->tolerance &&
           precision->half_least <= precision->tolerance * weight * p;
}

/* Is the row k (p - onehot(label)), each entry by itself?  Then it votes; a sure row may have r of either sign. */
static int row_agrees(const struct entry *label, const struct entry *other, double weight,
                      const struct gl_precision *precision, struct votes *votes) {
    double relative = precision->tolerance + 2 * precision->unit * fabs(log(fmax(other->p, 1e-300)));
    double allowed = relative * weight * other->p + precision->half_least;
    if (!(fabs(other->r - weight * other->p) <= allowed &&
          fabs(label->r + weight * other->p) <= allowed + LABEL_ROUNDINGS * precision->unit * weight))
        return 0;
    votes->rows[label->class] += 1;
    votes->telling[label->class] += is_telling(other->p, weight, precision);
    return 1;
}

/* Of two classes the one that is not `label` is `top` or, if they are the same, makes up the rest. */
static struct entry other_of_two(const struct row *row) {
    return has_two(row) ? row->top : (struct entry){1 - row->label.class, row->p, row->r};
}

/* Class weights would show as a disagreement between the rows of the two labels: the rows are judged one by one, for
 * the weight is fitted to the few with the largest r, and each label there is must have a row that tells. */
static double fit_two_classes(const struct job *job, const struct sums *sums, double *weight) {
    struct errors errors = {0};
    struct votes votes = {{0}, {0}};
    *weight = sums->fit_above / sums->fit_below;
    if (!(*weight > 0 && sums->wrong <= WRONG_MAX * (double)sums->rows))
        return INFINITY;
    for (int64_t i = 0; i < job->z->rows; i++) {
        struct row row = scan_row(job->kernels, job->z, job->r, i);
        if (!row.active)
            continue;
        struct entry other = other_of_two(&row);
        struct hard_row hard = hard_row(&row);
        add_hard_errors(&errors, &hard, *weight, 1, job->precision);
        if (!row_agrees(&row.label, &other, *weight, job->precision, &votes) &&
            !row_agrees(&other, &row.label, *weight, job->precision, &votes))
            return INFINITY;
    }
    int unheard = (votes.rows[0] > 0 && votes.telling[0] == 0) || (votes.rows[1] > 0 && votes.telling[1] == 0);
    return unheard || votes.telling[0] + votes.telling[1] < POINTS_MIN ? INFINITY : misfit_of(&errors);
}

/* Squared error of tau = k*floor at `other`, and k*(1 - (C-1) floor) at `label`. */
struct smooth {
    double weight, floor, label; /* k, a, 1 - (C-1) a */
};

static void add_smooth_errors(struct errors *errors, const struct row *row, const struct smooth *smooth, double unit) {
    double k = smooth->weight, rounding = LABEL_ROUNDINGS * unit * k;
    /* The label proper is where the implied target is larger. */
    int swapped = has_two(row) && k * row->top.p - row->top.r > k * row->label.p - row->label.r;
    const struct entry *label = swapped ? &row->top : &row->label, *other = swapped ? &row->label : &row->top;
    double error = positive(fabs(label->r - k * (label->p - smooth->label)) - rounding);
    errors->label += error * error;
    /* Not r: where the model is as sure as the targets are, that is next to nothing. */
    errors->label_scale += k * k * (1 - label->p) * (1 - label->p) + label->r * label->r;
    if (has_two(row)) {
        error = positive(fabs(other->r - k * (other->p - smooth->floor)) - rounding);
        errors->other += error * error;
        errors->other_scale += k * k * other->p * other->p + other->r * other->r;
    }
}

/* The line r = k p - k a through the points of the rests of all rows. */
struct line {
    double slope, floor;
    double error; /* sum of squared errors */
    double rise;  /* sum of squares that the slope explains */
};

static struct line fit_line(const struct sums *sums, double forgiven) {
    double spread = sums->pp - sums->p * sums->p / sums->n;
    double k = (sums->rp - sums->r * sums->p / sums->n) / spread, b = (k * sums->p - sums->r) / sums->n;
    double error =
        sums->rr + k * k * sums->pp + sums->n * b * b - 2 * k * sums->rp + 2 * b * sums->r - 2 * k * b * sums->p;
    return (struct line){.slope = k, .floor = b / k, .error = positive(error - forgiven), .rise = k * k * spread};
}

/* Is it a line with a slope, and could that be smoothing? */
static int is_smoothing(const struct line *line, const struct sums *sums, double classes) {
    double mass = line->floor * classes;
    int enough = sums->rows >= POINTS_MIN && sums->n >= POINTS_MIN;
    int steep = line->slope > 0 && line->error <= SLOPE_ERROR_MAX * SLOPE_ERROR_MAX * line->rise;
    return enough && steep && mass >= SMOOTH_MASS_MIN && mass <= SMOOTH_MASS_MAX;
}

static double fit_smooth(const struct job *job, const struct sums *sums, double *weight) {
    double classes = (double)job->z->classes;
    double forgiven = sums->n * job->precision->half_least * job->precision->half_least;
    struct line line = fit_line(sums, forgiven);
    if (!(is_smoothing(&line, sums, classes) && sums->rr > 2 * forgiven))
        return INFINITY;
    struct smooth smooth = {line.slope, line.floor, 1 - (classes - 1) * line.floor};
    struct errors errors = {.other = line.error, .other_scale = positive(sums->rr - forgiven)};
    for (int64_t i = 0; i < job->z->rows; i++) {
        struct row row = scan_row(job->kernels, job->z, job->r, i);
        if (row.active)
            add_smooth_errors(&errors, &row, &smooth, job->precision->unit);
    }
    *weight = line.slope;
    return misfit_of(&errors);
}

static double fit_mean(const struct job *job, const struct sums *sums) {
    if (sums->rows < POINTS_MIN)
        return INFINITY;
    return gl_ce_infer_mean(job->kernels, job->z, job->r, sums->rows, job->precision);
}

/* ---------------------------------------------------------------- verdict */

/* A row sure of its label has small r and next to no curvature, but its weight is a quotient of small numbers: it may
 * exceed those that are known well by as much as class weights differ, and no further. */
#define WEIGHT_RATIO_MAX 16

static double settle_hard(double *k, int64_t rows, double sure_max) {
    double sum = 0, most = WEIGHT_RATIO_MAX * sure_max;
    for (int64_t i = 0; i < rows; i++) {
        double weight = isnan(k[i]) ? 0 : fabs(k[i]);
        k[i] = k[i] < 0 && most > 0 && weight > most ? most : weight;
        sum += k[i];
    }
    return sum;
}

static double settle_common(double *k, int64_t rows, double weight) {
    double sum = 0;
    for (int64_t i = 0; i < rows; i++) {
        k[i] = isnan(k[i]) ? 0 : weight;
        sum += k[i];
    }
    return sum;
}

static void settle_none(double *k, int64_t rows, double value) {
    for (int64_t i = 0; i < rows; i++)
        k[i] = value;
}

/* The first hypothesis within the tolerance; `best` keeps the least misfit seen. */
static int stands(struct gl_ce_fit *fit, enum gl_ce_kind kind, double misfit, double tolerance) {
    int accepted = misfit <= tolerance;
    if (accepted || misfit < fit->misfit)
        fit->misfit = misfit;
    if (accepted)
        fit->kind = kind;
    return accepted;
}

static GL_NOINLINE void infer(const struct job *job, double *k, struct gl_ce_fit *fit) {
    const struct gl_matrix *z = job->z;
    struct sums sums = {0};
    double common = 0, tolerance = job->precision->tolerance;
    scan(job, k, &sums);
    *fit = (struct gl_ce_fit){.kind = GL_CE_NONE, .rows = sums.rows, .misfit = INFINITY, .weight = 0};
    if (sums.rows == 0 || z->classes < 2)
        settle_none(k, z->rows, 0);
    else if (z->classes > 2 && stands(fit, GL_CE_HARD, misfit_of(&sums.hard), tolerance))
        fit->weight = settle_hard(k, z->rows, sums.sure_max);
    else if (z->classes == 2 && stands(fit, GL_CE_HARD, fit_two_classes(job, &sums, &common), tolerance))
        fit->weight = settle_common(k, z->rows, common);
    else if (stands(fit, GL_CE_SMOOTH, fit_smooth(job, &sums, &common), tolerance))
        fit->weight = settle_common(k, z->rows, common);
    else if (stands(fit, GL_CE_MEAN, fit_mean(job, &sums), tolerance))
        fit->weight = settle_common(k, z->rows, 1 / (double)sums.rows);
    else
        settle_none(k, z->rows, NAN);
}

enum gl_status gl_ce_infer(const struct gl_matrix *z, const struct gl_matrix *r, double *k, struct gl_ce_fit *fit) {
    enum gl_status status = gl_matrix_check(z);
    if (status == GL_OK)
        status = gl_matrix_check_like(r, z);
    if (status != GL_OK)
        return status;
    if (fit == NULL || (k == NULL && z->rows > 0))
        return GL_ERR_ARGUMENT;
    /* The coarser of the two: logits that were rounded after the loss saw them shift p as a rounded r would. */
    const struct gl_precision *of_z = &precisions[z->dtype], *of_r = &precisions[r->dtype];
    struct job job = {gl_kernels_current(), z, r, of_z->unit > of_r->unit ? of_z : of_r};
    gl_fpenv saved = gl_fpenv_enter();
    infer(&job, k, fit);
    gl_fpenv_leave(saved);
    return GL_OK;
}
