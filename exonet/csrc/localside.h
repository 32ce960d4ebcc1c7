/* SPDX-License-Identifier: MIT
 *
 * What localside.c (bind time) and template.c (use time) share: a box of a local side names, as its binding, what is left to check of
 * a frame that lies in it. The demux never says whose a frame is here, only which of these.
 */
#ifndef EXO_LOCALSIDE_H
#define EXO_LOCALSIDE_H

/* In the order in which two equal boxes are asked: the one that leaves least goes first. */
enum side {
    SIDE_FREE = 1,       /* nothing */
    SIDE_ARP,            /* the sender's hardware address is that of the frame */
    SIDE_WHOLE,          /* every port: a whole IP packet, and no message of neighbour discovery */
    SIDE_PORTS,          /* some ports: besides, the port lies inside the packet */
    SIDE_DISCOVERY,      /* neighbour discovery and listener reports: besides, their options are the sender's own */
    SIDE_UNSPECIFIED,    /* the same from :: */
    SIDES
};

#endif
