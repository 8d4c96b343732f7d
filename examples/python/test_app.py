import unittest

from app import greeting


class GreetingTest(unittest.TestCase):
    def test_the_name_is_in_the_path(self):
        self.assertEqual(greeting("/moon"), "good day, moon\n")

    def test_without_a_name_the_world_is_greeted(self):
        self.assertEqual(greeting("/"), "good day, world\n")
