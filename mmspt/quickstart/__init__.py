"""The first five minutes: a linear probe, VPT and SPT side by side on a folder of images, in minutes that are named."""
