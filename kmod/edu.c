// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device with hardware: edu, the PCI device that QEMU has for teaching. It owns
 * a buffer of 4 KiB and a DMA engine that moves bytes between that and memory. Here
 * it's bound and unbound; edu_queue.c works with it.
 *
 * struct dio_edu lives as long as the dio_dev: who cancels looks into the queue.
 * What belongs to the PCI device goes with its removal.
 */
#include <linux/idr.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "edu.h"

#define DIO_EDU_VENDOR		0x1234
#define DIO_EDU_DEVICE		0x11e8

static unsigned int edu_dma_bits = 28;
module_param(edu_dma_bits, uint, 0644);
MODULE_PARM_DESC(edu_dma_bits,
		 "address lines of edu's DMA: what -device edu,dma_mask= gives it; read when it's bound");

static DEFINE_IDA(dio_edu_ids);

static void dio_edu_release(struct dio_dev *dev)
{
	kfree(dev->hardware);
}

static const struct dio_backend dio_edu_backend = {
	.driver		= DIO_EDU_NAME,
	.capacity	= EDU_BUFFER_SIZE,
	.model		= DIO_MODEL_EDU,
	.prepare	= dio_edu_prepare,
	.submit		= dio_edu_submit,
	.withdraw	= dio_edu_withdraw,
	.release	= dio_edu_release,
};

/* The PCI side: registers, DMA, the interrupt. */
static int dio_edu_open(struct dio_edu *edu)
{
	struct pci_dev *pdev = edu->pdev;
	u32 id;
	int ret;

	ret = pci_enable_device(pdev);
	if (ret)
		return ret;
	ret = pci_request_regions(pdev, DIO_EDU_NAME);
	if (ret)
		goto fail_disable;
	edu->regs = pci_iomap(pdev, 0, 0);
	if (!edu->regs) {
		ret = -ENOMEM;
		goto fail_regions;
	}
	id = readl(edu->regs + EDU_ID);
	if ((id & EDU_ID_MASK) != EDU_ID_VALUE) {
		dev_err(&pdev->dev, "says that it's 0x%08x, which is no edu\n", id);
		ret = -ENODEV;
		goto fail_unmap;
	}
	ret = dio_dma_init(&edu->engine, &pdev->dev, edu_dma_bits, EDU_BUFFER_SIZE);
	if (ret) {
		dev_err(&pdev->dev, "no DMA with edu_dma_bits=%u (1 to 64): %d\n",
			edu_dma_bits, ret);
		goto fail_unmap;
	}
	ret = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_ALL_TYPES);
	if (ret < 0)
		goto fail_dma;
	/* What an earlier driver left. */
	writel(U32_MAX, edu->regs + EDU_IRQ_ACK);
	ret = request_irq(pci_irq_vector(pdev, 0), dio_edu_interrupt, IRQF_SHARED,
			  DIO_EDU_NAME, edu);
	if (ret)
		goto fail_vectors;
	/* A transfer that an earlier driver started may still run: dio_edu_begin(). */
	pci_clear_master(pdev);
	edu->stopped = true;
	return 0;

fail_vectors:
	pci_free_irq_vectors(pdev);
fail_dma:
	dio_dma_exit(&edu->engine);
fail_unmap:
	pci_iounmap(pdev, edu->regs);
fail_regions:
	pci_release_regions(pdev);
fail_disable:
	pci_disable_device(pdev);
	return ret;
}

/* The hardware is idle, and nobody gives it work any more. */
static void dio_edu_close(struct dio_edu *edu)
{
	struct pci_dev *pdev = edu->pdev;

	free_irq(pci_irq_vector(pdev, 0), edu);
	pci_clear_master(pdev);
	pci_free_irq_vectors(pdev);
	dio_dma_exit(&edu->engine);
	pci_iounmap(pdev, edu->regs);
	pci_release_regions(pdev);
	pci_disable_device(pdev);
}

/* Nobody begins anything any more: its last work is ended, its resources go. */
static void dio_edu_stop(struct dio_edu *edu)
{
	int id = edu->id;

	dio_edu_queue_exit(edu);
	dio_edu_close(edu);
	/* @edu goes with the last file. */
	put_device(&edu->dev->dev);
	ida_free(&dio_edu_ids, id);
}

static int dio_edu_probe(struct pci_dev *pdev, const struct pci_device_id *ids)
{
	struct dio_edu *edu;
	int ret;

	edu = kzalloc_obj(*edu, GFP_KERNEL);
	if (!edu)
		return -ENOMEM;
	edu->pdev = pdev;
	dio_edu_queue_init(edu);

	edu->id = ida_alloc(&dio_edu_ids, GFP_KERNEL);
	if (edu->id < 0) {
		ret = edu->id;
		goto fail_free;
	}
	ret = dio_edu_open(edu);
	if (ret)
		goto fail_id;

	edu->dev = dio_dev_create(&pdev->dev, DIO_EDU_NAME "%d", edu->id,
				  &dio_edu_backend, edu);
	if (IS_ERR(edu->dev)) {
		ret = PTR_ERR(edu->dev);
		goto fail_close;
	}
	pci_set_drvdata(pdev, edu);
	ret = dio_dev_show(edu->dev);
	if (ret)
		dio_edu_stop(edu);
	return ret;

fail_close:
	dio_edu_close(edu);
fail_id:
	ida_free(&dio_edu_ids, edu->id);
fail_free:
	kfree(edu);
	return ret;
}

static void dio_edu_remove(struct pci_dev *pdev)
{
	struct dio_edu *edu = pci_get_drvdata(pdev);

	dio_dev_remove(edu->dev);
	dio_edu_stop(edu);
}

static const struct pci_device_id dio_edu_pci_ids[] = {
	{ PCI_DEVICE(DIO_EDU_VENDOR, DIO_EDU_DEVICE) },
	{ }
};
MODULE_DEVICE_TABLE(pci, dio_edu_pci_ids);

static struct pci_driver dio_edu_driver = {
	.name		= DIO_EDU_NAME,
	.id_table	= dio_edu_pci_ids,
	.probe		= dio_edu_probe,
	.remove		= dio_edu_remove,
};

int dio_edu_init(void)
{
	return pci_register_driver(&dio_edu_driver);
}

void dio_edu_exit(void)
{
	pci_unregister_driver(&dio_edu_driver);
}
