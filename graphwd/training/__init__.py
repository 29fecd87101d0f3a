"""What accompanies `fit`: decoupled decay, schedules of strengths, the start of L2-SP, the logger.

Other rooms import nothing from here but `graphwd.api`, which shows what an optimizer decays.
"""
