/* gl_tensorwise.c - means and sums over tensors, in which each tensor counts alike whatever its size.
 *
 *   cosine   mean_i ab_i/(sqrt(aa_i) sqrt(bb_i))
 *   ratios   sum_i dd_i/xx_i
 *
 * The sums over a whole network are those of its largest or steepest tensors; these are not.  They are free of
 * the units of each tensor: a factor on one vector of a tensor changes no cosine, one on both no ratio.
 *
 * Entries without a length have no say.  NaN and infinity are not left out: the mean shows them.
 */
#include <math.h>
#include <stddef.h>

#include "glyder.h"
#include "gl_common.h" /* GL_NOINLINE */
#include "gl_fpenv.h"  /* gl_fpenv_enter, gl_fpenv_leave */

static GL_NOINLINE double mean_cosine(const double *ab, const double *aa, const double *bb, int64_t n,
                                      int64_t *counted) {
    double sum = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        if (aa[i] != 0 && bb[i] != 0) {
            sum += ab[i] / (sqrt(aa[i]) * sqrt(bb[i]));
            count++;
        }
    *counted = count;
    return count > 0 ? sum / (double)count : 0;
}

enum gl_status gl_mean_cosine(const double *ab, const double *aa, const double *bb, int64_t n, double *mean,
                              int64_t *counted) {
    if (n < 0 || mean == NULL || counted == NULL || (n > 0 && (ab == NULL || aa == NULL || bb == NULL)))
        return GL_ERR_ARGUMENT;
    gl_fpenv saved = gl_fpenv_enter();
    *mean = mean_cosine(ab, aa, bb, n, counted);
    gl_fpenv_leave(saved);
    return GL_OK;
}

static GL_NOINLINE double sum_of_ratios(const double *dd, const double *xx, int64_t n, int64_t *counted) {
    double total = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        if (dd[i] != 0 && xx[i] != 0) {
            total += dd[i] / xx[i];
            count++;
        }
    *counted = count;
    return total;
}

enum gl_status gl_sum_of_ratios(const double *dd, const double *xx, int64_t n, double *sum, int64_t *counted) {
    if (n < 0 || sum == NULL || counted == NULL || (n > 0 && (dd == NULL || xx == NULL)))
        return GL_ERR_ARGUMENT;
    gl_fpenv saved = gl_fpenv_enter();
    *sum = sum_of_ratios(dd, xx, n, counted);
    gl_fpenv_leave(saved);
    return GL_OK;
}
