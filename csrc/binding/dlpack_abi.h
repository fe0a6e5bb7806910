/* dlpack_abi.h - the part of the DLPack 1.x binary interface that glyder reads, declared by ourselves.
 *
 * A tensor type that offers its memory has an attribute __dlpack_c_exchange_api__: a capsule of the name below around
 * a gl_dlpack_api.  The table lives as long as the process.  Only the borrowing entry is called; the owning entries
 * are declared as untyped function pointers to keep the layout.  The layout is fixed by the major version.
 */
#ifndef GL_DLPACK_ABI_H
#define GL_DLPACK_ABI_H

#include <stdint.h>

#define GL_DLPACK_ATTRIBUTE "__dlpack_c_exchange_api__"
#define GL_DLPACK_CAPSULE   "dlpack_exchange_api"
#define GL_DLPACK_MAJOR     1

/* Device types of memory that the processor reads: plain, and page-locked for an accelerator. */
enum { GL_DLPACK_CPU = 1, GL_DLPACK_CUDA_HOST = 3, GL_DLPACK_ROCM_HOST = 11 };

/* Element type codes. */
enum {
    GL_DLPACK_INT = 0,
    GL_DLPACK_UINT = 1,
    GL_DLPACK_FLOAT = 2,
    GL_DLPACK_BFLOAT = 4,
    GL_DLPACK_COMPLEX = 5,
    GL_DLPACK_BOOL = 6
};

struct gl_dlpack_device {
    int32_t type; /* an enumeration without a fixed type in DLPack's own header; 32 bits on every platform */
    int32_t index;
};

struct gl_dlpack_dtype {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
};

struct gl_dlpack_tensor {
    void *data;
    struct gl_dlpack_device device;
    int32_t ndim;
    struct gl_dlpack_dtype dtype;
    int64_t *shape;   /* may be NULL where ndim is 0 */
    int64_t *strides; /* in elements; NULL where ndim is 0, and before version 1.2 for contiguous memory */
    uint64_t byte_offset;
};

struct gl_dlpack_version {
    uint32_t major, minor;
};

/* The head of every table, in every version.  `previous` leads to a table of an older version, or is NULL. */
struct gl_dlpack_header {
    struct gl_dlpack_version version;
    struct gl_dlpack_header *previous;
};

/* Fills `out` with a view that is valid until the object changes.  0, or -1 with a Python exception set. */
typedef int (*gl_dlpack_borrow)(void *object, struct gl_dlpack_tensor *out);

struct gl_dlpack_api {
    struct gl_dlpack_header header;
    void (*allocate)(void);
    void (*export_owned)(void);
    void (*import_owned)(void);
    gl_dlpack_borrow borrow; /* may be NULL */
    void (*work_stream)(void);
};

#endif
