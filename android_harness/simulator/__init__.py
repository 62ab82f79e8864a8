"""A simulated Android device: the real adbd in a root and namespaces of its own, with stand-ins for the rest.

Nothing measured on one is a measurement: it says `ro.export_mobile.simulated=1` and holds /sim/SIMULATED.
Needs Linux and root. Made of, in the order they act:

base.py    makes the Debian root that all devices share, once
soc.py     the files that make it look like a Snapdragon 865
boot.sh    builds one device's root inside new namespaces; all of it dies with their process 1
keeper.py  one process per device: starts it, ends it, and lets it misbehave
link.py    the cable between adb's server and the device's adbd
faults.py  what misbehaves inside the device
device.py  `Simulated`: start, misbehave, stop, find
server.py  a private adb server
"""
