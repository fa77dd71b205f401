"""Published data sets and folders of images as tables of cases."""
