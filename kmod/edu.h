/* SPDX-License-Identifier: GPL-2.0-only */
/* QEMU's edu: edu.c binds to it, edu_queue.c works with it. */
#ifndef _DIO_EDU_H
#define _DIO_EDU_H

#include <linux/interrupt.h>
#include <linux/pci.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/wait.h>

#include "request.h"

#define DIO_EDU_NAME		"dio-edu"

/* Registers. Those of DMA have 64 bits, and don't change while it runs. */
#define EDU_ID			0x00
#define EDU_ID_MASK		0xffff
#define EDU_ID_VALUE		0x00ed
#define EDU_IRQ_STATUS		0x24
#define EDU_IRQ_ACK		0x64
#define EDU_IRQ_DMA		0x100
#define EDU_DMA_SRC		0x80
#define EDU_DMA_DST		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_CMD		0x98
#define EDU_DMA_RUN		0x1
#define EDU_DMA_TO_MEMORY	0x2
#define EDU_DMA_IRQ		0x4

#define EDU_BUFFER		0x40000	/* where DMA sees the device's own bytes */
#define EDU_BUFFER_SIZE		4096

struct dio_edu {
	struct pci_dev *pdev;
	struct dio_dev *dev;
	void __iomem *regs;
	int id;
	struct dio_dma_engine engine;

	spinlock_t lock;		/* all below and the registers; interrupts off */
	struct list_head queue;		/* dio_dma.queue, first come first */
	struct dio_request *active;	/* what the hardware works on */
	bool stopped;			/* it is kept from memory: no bus mastering */
	unsigned long deadline;		/* jiffies: the running transfer's */
	struct timer_list watchdog;
	wait_queue_head_t idle;
};

/* edu_queue.c */
irqreturn_t dio_edu_interrupt(int irq, void *data);
void dio_edu_queue_init(struct dio_edu *edu);
void dio_edu_queue_exit(struct dio_edu *edu);
int dio_edu_prepare(struct dio_dev *dev, struct dio_request *req, gfp_t gfp);
void dio_edu_submit(struct dio_dev *dev, struct dio_request *req);
bool dio_edu_withdraw(struct dio_dev *dev, struct dio_request *req);

#endif /* _DIO_EDU_H */
