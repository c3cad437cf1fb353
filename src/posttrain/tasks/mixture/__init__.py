"""Several data sets as one: each example belongs to a part, whose task asks, scores and explains it.

An example of the mixture is one of a data set that `options.parts` names, with

    id      PART/ID, so that ids differ over the parts
    part    the name of the data set
    task    the name of its task
"""
