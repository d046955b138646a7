"""From the archives of the data sets' owners to one canonical folder: train/<class>/, val/<class>/, unlabelled/."""
