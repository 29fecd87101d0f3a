"""What accompanies `fit`: decoupled decay, schedules of strengths, the penalty L2SP, the logger.

Of the package only `graphwd` itself and `graphwd.api` import from here.
"""
