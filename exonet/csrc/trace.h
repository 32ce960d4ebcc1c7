/* SPDX-License-Identifier: MIT
 *
 * Capture files: one bounds-checked reader of pcap (us, ns, modified; either byte order) and pcapng, plain or gzip. A trace that fits
 * the memory limit is *loaded*: its bytes and an index of records. A larger one is *streamed*: every cursor reads the file
 * through a window of its own. Both give the same records in the same order. A trace is counted by reference: cursors and replays
 * hold it, so the owner may release it at any time.
 */
struct exo_trace;
struct exo_cursor;

enum exo_trace_format { EXO_TRACE_PCAP = 1, EXO_TRACE_PCAPNG = 2 };

/* exo_record.flags. LINK_TYPE and OVERSIZE records are source fates, never frames. */
enum exo_record_flag {
    EXO_RECORD_SNAPPED = 1,      /* len < wire_len */
    EXO_RECORD_LINK_TYPE = 2,    /* not an Ethernet frame, and it could not become one */
    EXO_RECORD_OVERSIZE = 4,     /* longer than 65535 bytes */
    EXO_RECORD_NO_STAMP = 8,     /* a simple packet block: stamp is 0 and means nothing */
    EXO_RECORD_CLAMPED = 16,     /* its time is before 1970 or after 2262-04-11 (2^63 ns): stamp is that end */
    EXO_RECORD_FRACTION = 32,    /* its fraction of a second is a second or more: added as it is */
    EXO_RECORD_FCS = 64,         /* an FCS was left away */
    EXO_RECORD_CONVERTED = 128   /* it was of another link type */
};

/* A packet of another link type has become an Ethernet frame in place: its link header, and what stood before it where that is too
 * short, was written over. len and wire_len are the frame's, without an FCS. */
struct exo_record {
    uint64_t offset;         /* of the frame's bytes in the loaded data, or in the stream's window */
    uint64_t stamp;          /* ns since the epoch */
    uint32_t len;
    uint32_t wire_len;       /* never less than len */
    uint16_t interface;      /* running number over all sections */
    uint16_t flags;
    uint32_t link_type;      /* the interface's, where CONVERTED or LINK_TYPE is set; else 0 */
};

struct exo_interface {
    uint32_t link_type;      /* LINKTYPE_ of tcpdump.org; 1 is Ethernet */
    uint32_t snaplen;
    uint32_t section;
    uint16_t tsresol;        /* as if_tsresol: 6 is us, 9 is ns, 128 + n is 2 to the minus n */
    uint16_t fcslen;         /* bytes of FCS at the end of its frames: left away; epb_flags of a packet go before it */
    int64_t tsoffset;        /* seconds */
    uint64_t records;        /* of the interface, as far as the trace was read */
    uint64_t converted;
    uint64_t refused;        /* EXO_RECORD_LINK_TYPE */
};

enum exo_trace_times { EXO_LONG_GAP = 60 };    /* seconds without a packet that a person must know of */

/* What is wrong with a file, and where. offset and record count in the uncompressed file. */
struct exo_fault {
    int32_t code;            /* 0: nothing; EXO_E_FORMAT, EXO_E_SYSTEM, EXO_E_MEMORY, EXO_E_INVALID */
    int32_t saved_errno;
    uint64_t offset;
    uint64_t record;
    uint32_t found_len;      /* the file's first bytes */
    uint8_t found[16];
    char message[204];
};

struct exo_trace_info {
    uint64_t count;          /* records, of every link type */
    uint64_t bytes;          /* captured bytes of them, as the file has them: link headers and FCS count */
    uint64_t wire_bytes;
    uint64_t stamped;        /* records with a timestamp */
    uint64_t first_stamp;    /* in file order, of the records that have one */
    uint64_t last_stamp;
    uint64_t earliest;
    uint64_t latest;
    uint64_t backward;       /* timestamps before that of the record before */
    uint64_t step_back;      /* ns: the largest of them */
    uint64_t long_gaps;      /* longer than EXO_LONG_GAP */
    uint64_t longest_gap;    /* ns */
    uint64_t longest_before; /* number of the record after it */
    uint64_t clamped;
    uint64_t fractions;
    uint64_t snapped;
    uint64_t converted;      /* to Ethernet frames */
    uint64_t not_ethernet;   /* could not be: source.link_type */
    uint64_t fcs;            /* records whose FCS was left away */
    uint64_t oversize;
    uint64_t digest;         /* sum of exo_digest over frames; only after exo_trace_digest */
    uint64_t memory;         /* bytes held: data and index, or one window */
    uint32_t format;         /* enum exo_trace_format */
    uint32_t gzip;
    uint32_t big_endian;     /* of the (last) section */
    uint32_t nanosecond;     /* the pcap magic's */
    uint32_t interfaces;
    uint32_t streamed;
    uint32_t complete;       /* 0: a streamed trace that was not scanned to its end: the sums above are of a part */
    uint32_t reserved;
};

/* Opens and loads, or prepares to stream what needs more than memory_limit bytes. NULL: fault tells why. A file that breaks after its
 * header is opened all the same; see exo_trace_broken. */
struct exo_trace *exo_trace_open(const char *path, uint64_t memory_limit, struct exo_fault *fault);
void exo_trace_release(struct exo_trace *trace);
const struct exo_trace_info *exo_trace_info(const struct exo_trace *trace);
/* NULL where there is none such. */
const struct exo_interface *exo_trace_interface(const struct exo_trace *trace, uint32_t number);
/* Where and why the file ends before its end; NULL: it does not, as far as it was scanned or a cursor has read it. */
const struct exo_fault *exo_trace_broken(const struct exo_trace *trace);
/* A streamed trace: reads on, at most max records, to complete the info. Returns records read; 0: complete. */
int64_t exo_trace_scan(struct exo_trace *trace, uint64_t max);
/* Record i of a loaded trace. Returns 0 or why it is no frame (EXO_R_SOURCE_LINK_TYPE, _OVERSIZE); EXO_E_NOT_FOUND, EXO_E_INVALID:
 * streamed. */
int32_t exo_trace_frame(const struct exo_trace *trace, uint64_t i, struct exo_frame *out);
/* Sum of exo_digest over the frames; reads a streamed trace once more. */
int32_t exo_trace_digest(struct exo_trace *trace, uint64_t *digest);

/* Records in order. NULL: no memory. */
struct exo_cursor *exo_cursor_new(struct exo_trace *trace);
void exo_cursor_free(struct exo_cursor *cursor);
int32_t exo_cursor_rewind(struct exo_cursor *cursor);
/* At most max records as frames (id: the record's number), valid until the next call; reasons[i]: 0 or the source fate. EXO_E_END. */
int32_t exo_cursor_read(struct exo_cursor *cursor, struct exo_frame *out, int32_t *reasons, uint32_t max);
