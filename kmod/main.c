// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loading and unloading, and the software device: a platform device without
 * hardware, so that it's bound, unbound and rebound as any other. The hardware's
 * driver is in edu.c.
 *
 * An open file, and through it each kiocb and each mapping, keeps the module.
 */
#include <linux/init.h>
#include <linux/module.h>
#include <linux/platform_device.h>

#include "request.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

static struct platform_device *dio_software;

static int dio_probe(struct platform_device *pdev)
{
	struct dio_dev *dev;
	int ret;

	dev = dio_dev_create(&pdev->dev, DIO_NAME "%d", pdev->id, NULL, NULL);
	if (IS_ERR(dev))
		return PTR_ERR(dev);
	platform_set_drvdata(pdev, dev);
	ret = dio_dev_show(dev);
	if (ret)
		put_device(&dev->dev);
	return ret;
}

void dio_unbind(struct platform_device *pdev)
{
	struct dio_dev *dev = platform_get_drvdata(pdev);

	dio_dev_remove(dev);
	put_device(&dev->dev);
}

static struct platform_driver dio_driver = {
	.probe	= dio_probe,
	.remove	= dio_platform_remove,
	.driver	= {
		.name = DIO_NAME,
	},
};

static int __init dio_init(void)
{
	int ret;

	ret = dio_requests_init();
	if (ret)
		return ret;

	ret = dio_chrdev_init();
	if (ret)
		goto fail_requests;

	ret = platform_driver_register(&dio_driver);
	if (ret)
		goto fail_chrdev;

	dio_software = platform_device_register_simple(DIO_NAME, 0, NULL, 0);
	if (IS_ERR(dio_software)) {
		ret = PTR_ERR(dio_software);
		goto fail_driver;
	}

	ret = dio_edu_init();
	if (ret)
		goto fail_software;
	return 0;

fail_software:
	platform_device_unregister(dio_software);

fail_driver:
	platform_driver_unregister(&dio_driver);
fail_chrdev:
	dio_devices_exit();
	dio_chrdev_exit();
fail_requests:
	dio_requests_exit();
	return ret;
}

static void __exit dio_exit(void)
{
	dio_edu_exit();
	platform_device_unregister(dio_software);
	platform_driver_unregister(&dio_driver);
	dio_devices_exit();
	dio_chrdev_exit();
	dio_requests_exit();
}

module_init(dio_init);
module_exit(dio_exit);

MODULE_DESCRIPTION("Model character device for direct and asynchronous I/O");
MODULE_AUTHOR("The dio authors");
MODULE_LICENSE("GPL");
