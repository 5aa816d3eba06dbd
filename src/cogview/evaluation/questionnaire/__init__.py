"""Blind questionnaire in which people compare pictures of several systems.

Paper: 4.2, appendix E.
"""
